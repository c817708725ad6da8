"""Write the table of docs/subgradients.md from the code: what PyTorch and this library return at
kinks, and which of it is a subgradient.

python scripts/write_kink_table.py
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from saddlepoint.games import KINKS, absolute, hinge, largest, max_margin, positive_part
from saddlepoint.testing import check_subgradient

DOCS = Path(__file__).parents[1] / "docs"
Function = Callable[[Tensor], Tensor]
Chosen = Callable[..., Tensor]
FIRST = torch.tensor([0])


@dataclass(frozen=True)
class Kink:
    """A function with a kink at ``at``; ``vertices`` are the corners of its Clarke set, ``ours`` is
    the same function of this library."""

    name: str
    torch: Function
    at: float | tuple[float, ...]
    vertices: tuple[float | tuple[float, ...], ...] | str
    ours: Chosen | None = None
    ours_name: str = ""

    @property
    def point(self) -> Tensor:
        return torch.tensor(self.at, dtype=torch.float64)


def difference(x: Tensor, **how: object) -> Tensor:
    return positive_part(x, **how) - positive_part(-x, **how)


TIE, CORNERS = (1.0, 1.0), ((1.0, 0.0), (0.0, 1.0))
POSITIVE = ((0.0, 1.0), positive_part, "positive_part(x)")
BELOW_ONE = ((0.0, 1.0), lambda x, **how: 1 - hinge(x, **how), "1 - hinge(x)")
MAXIMUM = (CORNERS, largest, "largest(x)")
HINGE = ((-1.0, 0.0), hinge, "hinge(x)")
LEAKY = (
    (0.2, 1.0),
    lambda x, **how: 0.2 * x + 0.8 * positive_part(x, **how),
    "0.2 * x + 0.8 * positive_part(x)",
)
MARGIN = (
    ((0.0, 0.0), (-0.5, 0.5)),
    lambda x, **how: max_margin(x[None], FIRST, **how) / 2,
    "max_margin([x], [0]) / 2",
)

ROWS = (
    Kink("x.abs()", torch.abs, 0.0, (-1.0, 1.0), absolute, "absolute(x)"),
    Kink("x.relu()", torch.relu, 0.0, *POSITIVE),
    Kink("x.clamp(min=0)", lambda x: x.clamp(min=0), 0.0, *POSITIVE),
    Kink("torch.maximum(x, 0)", lambda x: torch.maximum(x, torch.zeros_like(x)), 0.0, *POSITIVE),
    Kink("F.leaky_relu(x, 0.2)", lambda x: F.leaky_relu(x, 0.2), 0.0, *LEAKY),
    Kink("F.hardtanh(x)", F.hardtanh, 1.0, *BELOW_ONE),
    Kink("x.clamp(max=1)", lambda x: x.clamp(max=1), 1.0, *BELOW_ONE),
    Kink("x.amax()", torch.amax, TIE, *MAXIMUM),
    Kink("x.max()", torch.max, TIE, *MAXIMUM),
    Kink("x.max(dim=0)", lambda x: x.max(dim=0).values, TIE, *MAXIMUM),
    Kink("x.sort()[-1]", lambda x: x.sort().values[-1], TIE, *MAXIMUM),
    Kink("F.max_pool1d(x, 2)", lambda x: F.max_pool1d(x[None], 2).sum(), TIE, *MAXIMUM),
    Kink("x.norm()", torch.norm, (0.0, 0.0), "‖g‖ ≤ 1"),
    Kink("x.sqrt()", torch.sqrt, 0.0, "none"),
    Kink(
        "x.square().sqrt()", lambda x: x.square().sqrt(), 0.0, (-1.0, 1.0), absolute, "absolute(x)"
    ),
    Kink("(1 - x).relu()", lambda x: (1 - x).relu(), 1.0, *HINGE),
    Kink(
        "F.hinge_embedding_loss(x, -1)",
        lambda x: F.hinge_embedding_loss(x, torch.tensor(-1.0)),
        1.0,
        *HINGE,
    ),
    Kink(
        "F.multi_margin_loss([x], [0])",
        lambda x: F.multi_margin_loss(x[None], FIRST),
        (1.0, 0.0),
        *MARGIN,
    ),
    Kink(
        "x.relu() - (-x).relu()",
        lambda x: x.relu() - (-x).relu(),
        0.0,
        (1.0,),
        difference,
        "positive_part(x) - positive_part(-x)",
    ),
)
HEAD = (
    "| function | at x = | Clarke set | PyTorch | with this library | " + " | ".join(KINKS) + " |"
)


def gradient(f: Function, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x), x)[0]


def selected(kink: Kink, kind: str) -> Function:
    """Return this library's function with a selection and the same random numbers every time."""
    assert kink.ours is not None
    return lambda x: kink.ours(x, kink=kind, generator=torch.Generator().manual_seed(0))


def answer(kink: Kink, f: Function) -> str:
    """Return the gradient of f at the kink, marked where it is no element of the Clarke set."""
    found = gradient(f, kink.point)
    try:
        check_subgradient(kink.torch, kink.point, found, convex=False)
    except AssertionError:
        return f"**{text(found)}** ✗"
    return text(found)


def text(value: Tensor | float | tuple[float, ...]) -> str:
    numbers = [
        f"{number + 0.0:.3g}"
        for number in torch.as_tensor(value, dtype=torch.float64).reshape(-1).tolist()
    ]
    return numbers[0] if len(numbers) == 1 else f"({', '.join(numbers)})"


def clarke(kink: Kink) -> str:
    if isinstance(kink.vertices, str):
        return kink.vertices
    corners = [text(vertex) for vertex in kink.vertices]
    if len(corners) == 1:
        return f"{{{corners[0]}}}"
    return (
        f"from {corners[0]} to {corners[1]}"
        if isinstance(kink.at, tuple)
        else f"[{', '.join(corners)}]"
    )


def row(kink: Kink) -> str:
    chosen = (
        [f"`{kink.ours_name}`", *(answer(kink, selected(kink, kind)) for kind in KINKS)]
        if kink.ours
        else ["–"] * (1 + len(KINKS))
    )
    cells = [f"`{kink.name}`", text(kink.at), clarke(kink), answer(kink, kink.torch), *chosen]
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """Return docs/subgradients.md as it should be: what stands around the table stays."""
    table = "\n".join([HEAD, "|---" * (5 + len(KINKS)) + "|", *map(row, ROWS)])
    old = (DOCS / "subgradients.md").read_text()
    return re.sub(
        r"<!-- kinks -->.*<!-- /kinks -->",
        lambda _: f"<!-- kinks -->\n{table}\n<!-- /kinks -->",
        old,
        flags=re.DOTALL,
    )


PAGES = {"subgradients.md": page}

if __name__ == "__main__":
    for name, content in PAGES.items():
        (DOCS / name).write_text(content())
