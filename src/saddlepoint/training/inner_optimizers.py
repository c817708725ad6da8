"""The inner optimizers of a run: whether each can work at all, and those that train at one point and are measured at another."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from saddlepoint import registry
from saddlepoint.errors import UsageError
from saddlepoint.io.checkpoint import decode, encode
from saddlepoint.optim import GradientOptimizer
from saddlepoint.rules import Averaged, Lookahead, Rule

if TYPE_CHECKING:
    from saddlepoint.training.training import Training

_SIDE = 3
"""Longest side of a stand-in for a parameter."""

Shapes = Sequence[tuple[str, Sequence[int]]]
"""(name, shape) of each parameter."""


def try_optimizer(player: str, name: str, options: Mapping[str, Any], shapes: Shapes) -> None:
    """Let an optimizer take a step on small stand-ins for a player's parameters.

    Raises:
        UsageError: it cannot: it needs a closure, the gradient's graph or sparse gradients, or has
            no learning rate. The sentence says which.
    """
    with _quietly():
        _stepped(player, name, options, shapes)


def check_resumable(training: Training) -> None:
    """Save and load the states of the inner optimizers' kind, on small stand-ins, before anything is trained that could not go on.

    Raises:
        UsageError: no checkpoint can hold such a state, or it cannot be loaded.
    """
    config = training.config.optimizer
    for player, network in training.networks.items():
        name, options = config.name, config.options_for(player)
        shapes = [(label, parameter.shape) for label, parameter in network.named_parameters()]
        with _quietly():
            exact = _resumes(player, name, options, shapes)
        if not exact:
            warnings.warn(
                f"Optimizer {name} keeps something outside of its state_dict: a run with it can be"
                " resumed, but not exactly.",
                stacklevel=2,
            )


def _resumes(player: str, name: str, options: Mapping[str, Any], shapes: Shapes) -> bool:
    """Say whether an optimizer that loads another one's state takes the same next step."""
    straight, parameters = _stepped(player, name, options, shapes)
    resumed, copies = _stepped(player, name, options, shapes, steps=0)
    try:
        state = decode(encode({"optimizer": straight.state_dict()}))["optimizer"]
        resumed.load_state_dict(state)
        _put(copies, parameters)
        for optimizer, own in ((straight, parameters), (resumed, copies)):
            torch.manual_seed(0)
            _step(optimizer, own, torch.Generator().manual_seed(1))
    except Exception as error:  # torch and optimizers raise many kinds
        raise UsageError(
            f'Optimizer {name} of the player "{player}": its state cannot be saved and loaded'
            f" again, so the run could not be resumed, sampled or evaluated: {_first_line(error)}."
            " Choose another optimizer."
        ) from error
    return all(torch.equal(a, b) for a, b in zip(parameters, copies, strict=True))


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep warnings, and what is drawn from the global random state, inside."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


def _stepped(
    player: str, name: str, options: Mapping[str, Any], shapes: Shapes, *, steps: int = 1
) -> tuple[Optimizer, list[Tensor]]:
    """Return an optimizer of small stand-ins after its first steps, and the stand-ins."""
    draws = torch.Generator().manual_seed(0)
    stand_ins = []
    for label, shape in shapes:
        small = [min(side, _SIDE) for side in shape]
        stand_ins.append((label, torch.randn(small, generator=draws).requires_grad_()))
    parameters = [tensor for _, tensor in stand_ins]
    optimizer = registry.build_optimizer(name, stand_ins, options)
    where = f'Optimizer {name} cannot train the player "{player}"'
    _check_rates(where, optimizer)
    try:
        if _has_two_modes(optimizer):
            optimizer.train()  # type: ignore[attr-defined]
        for _ in range(steps):
            _step(optimizer, parameters, draws)
    except Exception as error:  # an optimizer's own errors may be of any kind
        raise UsageError(
            f"{where}: a step on small tensors raised {type(error).__name__}: {_first_line(error)}."
            " Here an optimizer finds a dense direction in .grad, without the graph that made it,"
            " and step() gets no closure. Choose one that needs no more."
        ) from error
    return optimizer, parameters


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _check_rates(where: str, optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        rate = group.get("lr")
        if isinstance(rate, bool) or not isinstance(rate, int | float | Tensor):
            raise UsageError(
                f'{where}: it has no number "lr" in its parameter groups, and a run sets the'
                " learning rate of every step. Give optimizer.lr if it has that option, or else"
                " choose another optimizer."
            )


def _step(optimizer: Optimizer, parameters: Iterable[Tensor], draws: torch.Generator) -> None:
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=draws)
    if isinstance(optimizer, GradientOptimizer) and optimizer.needs_loss:
        optimizer.step(lambda: 1.0)
    else:
        optimizer.step()


class TwoModes:
    """Those of some optimizers that have two points, as schedule-free ones do: they train at one and are measured at the other.

    Such an optimizer has the methods ``train`` and ``eval``, which take the parameters from one
    point to the other.

    Args:
        optimizers: player → inner optimizer.
        rule: the run's rule.

    Raises:
        UsageError: the rule moves parameters itself, which the optimizer's other point would not
            follow.
    """

    def __init__(self, optimizers: Mapping[str, Optimizer], rule: Rule) -> None:
        self._optimizers: dict[str, Any] = {
            player: optimizer
            for player, optimizer in optimizers.items()
            if _has_two_modes(optimizer)
        }
        for player, optimizer in self._optimizers.items():
            if isinstance(rule, Lookahead | Averaged):
                raise UsageError(
                    f'Player "{player}": {type(optimizer).__name__} averages its own iterates and'
                    f" cannot follow the rule {type(rule).__name__}, which does so too. Use another"
                    " rule, or another optimizer."
                )
            optimizer.train()

    def __bool__(self) -> bool:
        return bool(self._optimizers)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Hold the parameters at the point that is measured inside; afterwards they are exactly what they were."""
        # before a step there is one point
        moved = [optimizer for optimizer in self._optimizers.values() if optimizer.state]
        parameters = [parameter for optimizer in moved for parameter in _of(optimizer)]
        before = [parameter.detach().clone() for parameter in parameters]
        for optimizer in moved:
            optimizer.eval()
        try:
            yield
        finally:
            for optimizer in moved:
                optimizer.train()
            _put(parameters, before)

    def iterates(self) -> dict[str, list[Tensor]]:
        """Return player → copies of the parameters where it trains."""
        return {
            player: [p.detach().clone() for p in _of(optimizer)]
            for player, optimizer in self._optimizers.items()
        }

    def load_iterates(self, iterates: Mapping[str, Sequence[Tensor]]) -> None:
        """Continue from what ``iterates`` returned."""
        for player, optimizer in self._optimizers.items():
            _put(_of(optimizer), iterates[player])


def _has_two_modes(optimizer: Optimizer) -> bool:
    return callable(getattr(optimizer, "train", None)) and callable(
        getattr(optimizer, "eval", None)
    )


@torch.no_grad()
def _put(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def _of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
