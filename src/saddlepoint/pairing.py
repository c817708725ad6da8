"""Which inner optimizers a rule can work with, and what is said where it cannot."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter
from torch.optim import LBFGS, SGD, Optimizer, SparseAdam

from saddlepoint.errors import CurvatureWarning, UsageError
from saddlepoint.game import Closure, MicroBatches, Players
from saddlepoint.optim import GradientOptimizer
from saddlepoint.rules import Averaged, GradientDescent, Lookahead, Rule


def as_players(optimizers: object) -> dict[str, Optimizer]:
    """Return player → optimizer.

    Raises:
        UsageError: it is no mapping.
    """
    if not isinstance(optimizers, Mapping):
        raise UsageError(
            f"GameOptimizer needs player → optimizer, not {type(optimizers).__name__}. Give each"
            ' player a name: GameOptimizer({"generator": optimizer_of_G, "discriminator":'
            " optimizer_of_D})."
        )
    return dict(optimizers)


def as_modules(
    modules: nn.Module | Mapping[str, nn.Module] | Iterable[nn.Module],
) -> tuple[nn.Module, ...]:
    """Return the modules, given as one, as several or by name.

    Raises:
        UsageError: one is no module, or waits for its first forward pass to know its shapes.
    """
    if isinstance(modules, nn.Module):
        modules = (modules,)
    given = tuple(modules.values() if isinstance(modules, Mapping) else modules)
    for module in given:
        if not isinstance(module, nn.Module):
            raise UsageError(
                f"modules= takes networks (torch.nn.Module), not {type(module).__name__}."
            )
        lazy = (inner for inner in module.modules() if isinstance(inner, LazyModuleMixin))
        if any(inner.has_uninitialized_params() for inner in lazy):
            raise UsageError(
                "A network has lazy layers whose shapes are not known yet. Run one forward pass"
                " before you build the optimizer."
            )
    return given


def as_generators(
    generators: torch.Generator | Iterable[torch.Generator],
) -> tuple[torch.Generator, ...]:
    """Return the generators, given as one or as several.

    Raises:
        UsageError: one is no ``torch.Generator``.
    """
    given = (generators,) if isinstance(generators, torch.Generator) else tuple(generators)
    for generator in given:
        if not isinstance(generator, torch.Generator):
            kind = type(generator).__name__
            raise UsageError(
                f"generators= takes torch.Generator objects, not {kind}; draw from others before"
                " the step."
            )
    return given


def as_closure(closure: Closure | Sequence[Closure]) -> Closure:
    """Return the closure, or the one that several for micro-batches make.

    Raises:
        UsageError: it cannot be called.
    """
    parts: list[Closure] = list(closure) if isinstance(closure, Sequence) else [closure]
    for part in parts:
        if not callable(part):
            raise UsageError(
                f"step() takes a function that returns player → loss, not {type(part).__name__}:"
                ' optimizer.step(lambda: {"generator": loss_of_G(), "discriminator":'
                " loss_of_D()}). Losses are computed inside of it."
            )
    return MicroBatches(parts) if isinstance(closure, Sequence) else parts[0]


def check_arguments(optimizers: Mapping[str, Optimizer], rule: Rule) -> None:
    """Raise UsageError unless there is a rule, and players with names and torch optimizers."""
    if isinstance(rule, type) or not isinstance(rule, Rule):
        given = rule.__name__ if isinstance(rule, type) else repr(rule)
        raise UsageError(
            f"rule={given} is no rule. Pass an instance, such as"
            " rule=saddlepoint.rules.Extragradient()."
        )
    if not optimizers:
        raise UsageError("A game needs at least one player.")
    for player, optimizer in optimizers.items():
        if not isinstance(player, str):
            raise UsageError(
                f"The name of a player must be a string, not {player!r}. Use for example"
                ' "generator".'
            )
        if not isinstance(optimizer, Optimizer):
            raise UsageError(
                f'Player "{player}": expected a torch.optim.Optimizer over its parameters, not'
                f" {type(optimizer).__name__}. Use for example"
                " torch.optim.Adam(network.parameters(), lr=1e-4)."
            )


def check_numbers(players: Players, rule: Rule) -> None:
    """Raise UsageError where the rule has no meaning for the numbers that a parameter holds."""
    for player, parameters in players.items():
        for index, parameter in enumerate(parameters):
            if isinstance(parameter, UninitializedParameter):
                raise UsageError(
                    f'Parameter {index} of player "{player}" belongs to a lazy layer whose shape is'
                    " not known yet. Run one forward pass before you build the optimizer."
                )
            if parameter.is_complex() and rule.order == 0:
                raise UsageError(
                    f'Parameter {index} of player "{player}", shape {tuple(parameter.shape)}, is'
                    f" complex. {type(rule).__name__} displaces real numbers. Keep the parameter as"
                    " pairs of real numbers and use torch.view_as_complex in the network."
                )


def check_pair(player: str, optimizer: Optimizer, rule: Rule) -> None:
    """Raise UsageError where the optimizer of a player cannot apply the directions of the rule."""
    name, kind = type(rule).__name__, type(optimizer).__name__
    if isinstance(optimizer, LBFGS):
        raise UsageError(
            f'Player "{player}": LBFGS evaluates its own closure, which a game step does not have.'
            " Use any other optimizer."
        )
    if isinstance(optimizer, SparseAdam):
        raise UsageError(
            f'Player "{player}": SparseAdam takes sparse gradients only, and a rule gives dense'
            " ones. Use Adam, and an Embedding with sparse=False."
        )
    if (
        isinstance(optimizer, GradientOptimizer)
        and optimizer.needs_loss
        and not _follows_the_gradient(rule)
    ):
        raise UsageError(
            f'Player "{player}": this {kind} uses the value of the loss, and directions of {name}'
            " are not its gradient at that point. Use it with Gradient, or choose another step"
            " size or average."
        )
    for group in optimizer.param_groups:
        if group.get("maximize"):
            raise UsageError(
                f'Player "{player}": maximize=True. Every player minimises its own loss; negate the'
                " loss instead."
            )
        if rule.output == "update":
            _check_plain_sgd(player, optimizer, group, name)


def warn_of_decay(player: str, optimizer: Optimizer, rule: Rule) -> bool:
    """Warn where weight decay acts beside a rule of order 2; return whether it does."""
    if rule.order < 2 or not any(group.get("weight_decay") for group in optimizer.param_groups):
        return False
    warnings.warn(
        f'Player "{player}": weight decay of {type(optimizer).__name__} acts outside the curvature'
        f" of {type(rule).__name__} and changes its step. Add the decay to the loss instead to keep"
        " the rule exact.",
        CurvatureWarning,
        stacklevel=3,
    )
    return True


def _check_plain_sgd(
    player: str, optimizer: Optimizer, group: Mapping[str, Any], rule: str
) -> None:
    plain = isinstance(optimizer, SGD)
    if plain and not (group["momentum"] or group["weight_decay"]):
        return
    found = type(optimizer).__name__
    if plain:
        settings = [f"{name}={group[name]}" for name in ("momentum", "weight_decay") if group[name]]
        found = f"SGD with {' and '.join(settings)}"
    hint = (
        " A scheduler set the momentum: pass it cycle_momentum=False."
        if plain and group["momentum"] and "max_momentum" in group
        else ""
    )
    raise UsageError(
        f'Player "{player}": {rule} gives steps that contain the learning rate already, so its'
        " inner optimizer must be torch.optim.SGD without momentum and weight decay, not"
        f" {found}.{hint} Use SGD, or a rule in units of gradients."
    )


def _follows_the_gradient(rule: Rule) -> bool:
    """Say whether a rule's directions are the players' gradients at the current point, so that they belong to its losses."""
    return isinstance(rule, GradientDescent) or (
        isinstance(rule, Averaged | Lookahead) and _follows_the_gradient(rule.rule)
    )
