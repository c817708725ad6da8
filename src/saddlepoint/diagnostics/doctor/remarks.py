"""What the doctor says: remarks, ranked by how much they matter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

Level = Literal["error", "caution", "note"]

BOTH = "both"
"""The player of a remark about the game as a whole."""

_ORDER: tuple[Level, ...] = ("error", "caution", "note")


@dataclass(frozen=True)
class Remark:
    """Something about a pair of networks that a user should know before training.

    Attributes:
        level: "error" where training or a rule would fail or be silently wrong, "caution" where
            care is needed, "note" for information.
        check: the check's short name.
        player: "generator", "discriminator" or "both".
        layer: dotted name and class, such as "layers.1 (Linear)".
        sentence: what it is with its number, why it matters, and what to do.
        numbers: the evidence.
    """

    level: Level
    check: str
    player: str
    layer: str
    sentence: str
    numbers: dict[str, float] = field(default_factory=dict)


def ranked(remarks: Iterable[Remark]) -> tuple[Remark, ...]:
    """Return the remarks with errors first, then cautions, then notes; within a level in the order given.

    >>> [r.level for r in ranked(Remark(level, "x", "both", "", "") for level in ("note", "error", "caution"))]
    ['error', 'caution', 'note']
    """
    return tuple(sorted(remarks, key=lambda remark: _ORDER.index(remark.level)))


def module_at(network: nn.Module, name: str) -> nn.Module:
    """Return the layer with a dotted name, also in scripted networks, which have no get_submodule.

    >>> module_at(nn.Sequential(nn.Tanh()), "0")
    Tanh()
    """
    layers: dict[str, nn.Module] = dict(network.named_modules(remove_duplicate=False))
    return layers[name]


def layer_name(network: nn.Module, name: str) -> str:
    """Return a layer's dotted name and class.

    >>> layer_name(nn.Sequential(nn.Tanh()), "0"), layer_name(nn.Tanh(), "")
    ('0 (Tanh)', 'whole network (Tanh)')
    """
    return f"{name or 'whole network'} ({type(module_at(network, name)).__name__})"


def spoken(layer: str) -> str:
    """Return a layer's name as it stands in a sentence.

    >>> spoken("0 (Linear)"), spoken("whole network (Linear)")
    ('layer 0 (Linear)', 'the whole network (Linear)')
    """
    return f"the {layer}" if layer.startswith("whole network") else f"layer {layer}"


def listed(names: Iterable[str], most: int = 3) -> str:
    """Return the first few names and how many are left out.

    >>> listed("abcde")
    'a, b, c and 2 more'
    """
    everything = list(names)
    rest = len(everything) - most
    return ", ".join(everything[:most]) + (f" and {rest} more" if rest > 0 else "")


def first_line(error: BaseException) -> str:
    """Return the first line, as a sentence, of an error's own text, or of the one that caused it where that was PyTorch's.

    >>> first_line(RuntimeError("no\\nway"))
    'no.'
    """
    cause = error.__cause__ if isinstance(error.__cause__, RuntimeError) else error
    text = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    return text if text.endswith((".", "!", "?")) else f"{text}."
