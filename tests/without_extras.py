"""A program for a process of its own: what works where torch and numpy alone are installed, printed
as JSON.

Run as ``python without_extras.py README.md``. Nothing is uninstalled: packages that an extra brings
cannot be found in this process.
"""

import contextlib
import inspect
import io
import json
import re
import sys
import warnings
from importlib.abc import MetaPathFinder
from pathlib import Path

TORCH = {
    "torch",
    "torchgen",
    "typing_extensions",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "markupsafe",
    "fsspec",
    "filelock",
    "setuptools",
}
"""PyTorch and what its installation brings with it."""

LEAN = {"saddlepoint", "numpy", *TORCH, *sys.stdlib_module_names}


class OnlyTheCore(MetaPathFinder):
    """Finds what Python finds, except packages that the core does not depend on."""

    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, fullname, path=None, target=None):
        package = fullname.partition(".")[0]
        # of Python, with the platform in its name
        if package not in LEAN and not package.startswith("_sysconfigdata"):
            return None
        found = (finder.find_spec(fullname, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)


def python_blocks(page):
    """Run the examples of a page and return how many there are."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    for block in blocks:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block, str(page), "exec"), {})
    return len(blocks)


def a_rule(kind, sp):
    if kind is sp.rules.PerPlayer:
        return kind(sp.rules.Optimistic(), ("x",))
    if "leader" in inspect.signature(kind).parameters:
        return kind(leader="x", follower="y")
    return kind()


def step_of_every_rule(sp, torch):
    """Return the names of the rules that made a step on f = x² + 4xy − y²."""
    stepped = []
    for name in sp.rules.__all__:
        kind = getattr(sp.rules, name)
        if not (isinstance(kind, type) and issubclass(kind, sp.Rule)) or kind is sp.Rule:
            continue
        game = sp.games.zero_sum(2.0, 4.0, -2.0, (0.5, 0.3))
        inner = {
            player: torch.optim.SGD(tensors, lr=0.05) for player, tensors in game.players.items()
        }
        sp.GameOptimizer(inner, a_rule(kind, sp)).step(game.losses)
        assert game.theta.isfinite().all(), name
        assert not torch.equal(game.theta, torch.tensor([0.5, 0.3], dtype=torch.float64)), name
        stepped.append(name)
    return stepped


def step_of_every_optimizer(sp, torch):
    """Return the names of the optimizers that made a step on the same game."""
    stepped = []
    kinds = {"Adam": torch.optim.Adam}
    for name in sp.optim.__all__:
        kind = getattr(sp.optim, name)
        if (
            isinstance(kind, type)
            and issubclass(kind, torch.optim.Optimizer)
            and kind is not sp.optim.GradientOptimizer
        ):
            kinds[name] = kind
    for name, kind in kinds.items():
        game = sp.games.zero_sum(2.0, 4.0, -2.0, (0.5, 0.3))
        inner = {player: kind(tensors, lr=0.05) for player, tensors in game.players.items()}
        optimizer = sp.GameOptimizer(inner)
        optimizer.step(game.losses)
        optimizer.load_state_dict(optimizer.state_dict())
        assert not torch.equal(game.theta, torch.tensor([0.5, 0.3], dtype=torch.float64)), name
        stepped.append(name)
    return stepped


def curvature(sp, torch):
    """Solvers, preconditioners, dense eigenvalues, and the message for large operators."""
    x, y = (torch.ones(30, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def losses():
        f = (x * y).sum() + (x**2).sum() / 2 - (y**2).sum() / 2
        return {"x": f, "y": -f}

    jacobian = sp.linearize(sp.Game({"x": [x], "y": [y]}, losses)).jacobian
    assert jacobian.dense().shape == (60, 60)
    small = sp.curvature.eigenvalues(jacobian["x", "x"], 2)
    assert small.method == "dense"
    for scaling in (sp.RMSPreconditioner(), sp.KroneckerPreconditioner()):
        inner = {"x": torch.optim.SGD([x], lr=0.1), "y": torch.optim.SGD([y], lr=0.1)}
        sp.GameOptimizer(inner, sp.CompetitiveGradient(preconditioner=scaling)).step(losses)
    sp.testing.check_rule(sp.rules.Consensus())
    network = sp.models.MLP((2, 3, 1), generator=torch.Generator().manual_seed(0))
    assert network(torch.zeros(4, 2)).shape == (4, 1)
    try:
        sp.curvature.eigenvalues(jacobian, 2)
    except sp.MissingExtraError as error:
        return str(error)
    return "no error"


def message(module):
    """Return what importing a module says."""
    try:
        __import__(module)
    except ImportError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def command(*arguments):
    """Return exit code, output and errors of a command."""
    from saddlepoint.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["saddlepoint", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            return end.code, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    sys.meta_path[:] = [OnlyTheCore(list(sys.meta_path))]
    warnings.simplefilter("ignore")  # solves that stop early are not what this is about

    import torch

    import saddlepoint as sp

    needing = (
        "metrics",
        "problems",
        "report",
        "training",
        "registry",
        "compare",
        "cli",
        "io.limits",
        "diagnostics.figures",
    )
    commands = (
        [],
        ["--version"],
        ["train", "mixture8"],
        ["compare", "mixture8"],
        ["tune", "mixture8", "--method", "adam"],
    )
    found = {
        "blocks": python_blocks(Path(sys.argv[1])),
        "rules": step_of_every_rule(sp, torch),
        "optimizers": step_of_every_optimizer(sp, torch),
        "eigenvalues": curvature(sp, torch),
        "modules": {name: message(f"saddlepoint.{name}") for name in needing},
        "commands": {" ".join(words[:1]): command(*words) for words in commands},
    }
    print(json.dumps(found))
