"""Inner optimizers of a run: a trial step before it starts, and optimizers with an eval mode."""

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
    from saddlepoint.training.trainer import Trainer

_MAX_SIDE = 3  # of the small tensors that stand for parameters

Shapes = Sequence[tuple[str, Sequence[int]]]
"""(name, shape) of each parameter."""


def try_optimizer(player: str, name: str, options: Mapping[str, Any], shapes: Shapes) -> None:
    """Take a step of an optimizer on small tensors in place of a player's parameters.

    Args:
        player: the player, for messages.
        name: name of the optimizer.
        options: its options.
        shapes: names and shapes of the player's parameters.

    Raises:
        UsageError: the optimizer needs a closure, the gradient's graph or sparse gradients, or has
            no learning rate; the message says which.
    """
    with _isolated():
        _optimizer_after_steps(player, name, options, shapes, steps=1)


def check_resumable(trainer: Trainer) -> None:
    """Save and load the states of the inner optimizers, on small tensors, before training starts.

    Warns if an optimizer that loads a state does not take the same next step.

    Raises:
        UsageError: a checkpoint cannot hold such a state, or it cannot be loaded.
    """
    config = trainer.config.optimizer
    for player, network in trainer.networks.items():
        name, options = config.name, config.options_for(player)
        shapes = [(label, parameter.shape) for label, parameter in network.named_parameters()]
        with _isolated():
            original, parameters = _optimizer_after_steps(player, name, options, shapes, steps=1)
            resumed, copies = _optimizer_after_steps(player, name, options, shapes, steps=0)
            try:
                state = decode(encode({"optimizer": original.state_dict()}))["optimizer"]
                resumed.load_state_dict(state)
                _copy_values(copies, parameters)
                for optimizer, own in ((original, parameters), (resumed, copies)):
                    torch.manual_seed(0)
                    _step(optimizer, own, torch.Generator().manual_seed(1))
            except Exception as error:  # torch and optimizers raise many types
                raise UsageError(
                    f'Optimizer {name} of the player "{player}": its state cannot be saved and'
                    " loaded again, so the run could not be resumed, sampled or evaluated:"
                    f" {_first_line(error)}. Choose another optimizer."
                ) from error
            exact = all(torch.equal(a, b) for a, b in zip(parameters, copies, strict=True))
        if not exact:
            warnings.warn(
                f"Optimizer {name} keeps values outside of its state_dict: a run with it can be"
                " resumed, but not exactly.",
                stacklevel=2,
            )


@contextmanager
def _isolated() -> Iterator[None]:
    """Suppress warnings and restore the global random state afterwards."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


def _optimizer_after_steps(
    player: str, name: str, options: Mapping[str, Any], shapes: Shapes, *, steps: int
) -> tuple[Optimizer, list[Tensor]]:
    """Return an optimizer of small tensors after some steps, and the tensors."""
    generator = torch.Generator().manual_seed(0)
    named = []
    for label, shape in shapes:
        small = [min(side, _MAX_SIDE) for side in shape]
        named.append((label, torch.randn(small, generator=generator).requires_grad_()))
    parameters = [tensor for _, tensor in named]
    optimizer = registry.build_optimizer(name, named, options)
    prefix = f'Optimizer {name} cannot train the player "{player}"'
    for group in optimizer.param_groups:
        lr = group.get("lr")
        if isinstance(lr, bool) or not isinstance(lr, int | float | Tensor):
            raise UsageError(
                f'{prefix}: it has no number "lr" in its parameter groups, and a run sets the'
                " learning rate of every step. Give optimizer.lr if it has that option, or else"
                " choose another optimizer."
            )
    try:
        if _has_eval_mode(optimizer):
            optimizer.train()  # type: ignore[attr-defined]
        for _ in range(steps):
            _step(optimizer, parameters, generator)
    except Exception as error:  # an optimizer may raise anything
        raise UsageError(
            f"{prefix}: a step on small tensors raised {type(error).__name__}:"
            f" {_first_line(error)}. An inner optimizer gets a dense direction in .grad without a"
            " graph, and step() gets no closure. Choose an optimizer that needs no more."
        ) from error
    return optimizer, parameters


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _step(optimizer: Optimizer, parameters: Iterable[Tensor], generator: torch.Generator) -> None:
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    if isinstance(optimizer, GradientOptimizer) and optimizer.needs_loss:
        optimizer.step(lambda: 1.0)
    else:
        optimizer.step()


class EvalModeOptimizers:
    """The inner optimizers that have an evaluation mode, such as schedule-free optimizers.

    Their methods ``train`` and ``eval`` change the parameters between the values that are trained
    and the values that are evaluated. The object is false if no optimizer has these methods.

    Args:
        optimizers: player → inner optimizer.
        rule: the run's rule.

    Raises:
        UsageError: the rule moves parameters itself, which the values for evaluation would not
            follow.
    """

    def __init__(self, optimizers: Mapping[str, Optimizer], rule: Rule) -> None:
        self._optimizers: dict[str, Any] = {
            player: optimizer
            for player, optimizer in optimizers.items()
            if _has_eval_mode(optimizer)
        }
        for player, optimizer in self._optimizers.items():
            if isinstance(rule, Lookahead | Averaged):
                raise UsageError(
                    f'Player "{player}": {type(optimizer).__name__} averages its own iterates, and'
                    f" so does the rule {type(rule).__name__}; they cannot be combined. Use another"
                    " rule, or another optimizer."
                )
            optimizer.train()

    def __bool__(self) -> bool:
        return bool(self._optimizers)

    @contextmanager
    def eval_mode(self) -> Iterator[None]:
        """Set the parameters to the values for evaluation inside; restore them exactly after."""
        # before the first step there is only one value
        moved = [optimizer for optimizer in self._optimizers.values() if optimizer.state]
        parameters: list[Tensor] = []
        for optimizer in moved:
            parameters += _parameters_of(optimizer)
        before = [parameter.detach().clone() for parameter in parameters]
        for optimizer in moved:
            optimizer.eval()
        try:
            yield
        finally:
            for optimizer in moved:
                optimizer.train()
            _copy_values(parameters, before)

    def iterates(self) -> dict[str, list[Tensor]]:
        """Return player → copies of the parameters in training mode."""
        copies = {}
        for player, optimizer in self._optimizers.items():
            copies[player] = [p.detach().clone() for p in _parameters_of(optimizer)]
        return copies

    def load_iterates(self, iterates: Mapping[str, Sequence[Tensor]]) -> None:
        """Restore what ``iterates`` returned."""
        for player, optimizer in self._optimizers.items():
            _copy_values(_parameters_of(optimizer), iterates[player])


def _has_eval_mode(optimizer: Optimizer) -> bool:
    methods = (getattr(optimizer, "train", None), getattr(optimizer, "eval", None))
    return all(callable(method) for method in methods)


@torch.no_grad()
def _copy_values(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def _parameters_of(optimizer: Optimizer) -> list[Tensor]:
    found: list[Tensor] = []
    for group in optimizer.param_groups:
        found += group["params"]
    return found
