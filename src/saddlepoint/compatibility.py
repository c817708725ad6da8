"""Which inner optimizers, parameters and arguments a rule can work with, and the error messages."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

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
        UsageError: ``optimizers`` is not a mapping.
    """
    if not isinstance(optimizers, Mapping):
        raise UsageError(
            f"GameOptimizer needs a mapping player → optimizer, not {type(optimizers).__name__}."
            ' Give each player a name: GameOptimizer({"generator": optimizer_of_G,'
            ' "discriminator": optimizer_of_D}).'
        )
    return dict(optimizers)


def as_modules(
    modules: nn.Module | Mapping[str, nn.Module] | Iterable[nn.Module],
) -> tuple[nn.Module, ...]:
    """Return the modules as a tuple, given as one, several or a mapping of modules.

    Raises:
        UsageError: an element is not a module, or has lazy layers whose shapes are not known yet.
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
    """Return the generators as a tuple, given as one or several.

    Raises:
        UsageError: an element is not a ``torch.Generator``.
    """
    given = (generators,) if isinstance(generators, torch.Generator) else tuple(generators)
    for generator in given:
        if not isinstance(generator, torch.Generator):
            raise UsageError(
                f"generators= takes torch.Generator objects, not {type(generator).__name__}. Draw"
                " random numbers of other generators before the step."
            )
    return given


def as_closure(closure: Closure | Sequence[Closure]) -> Closure:
    """Return one closure; several closures are combined as micro-batches.

    Raises:
        UsageError: a closure is not callable.
    """
    parts: list[Closure] = list(closure) if isinstance(closure, Sequence) else [closure]
    for part in parts:
        if not callable(part):
            raise UsageError(
                f"step() takes a function that returns player → loss, not {type(part).__name__}:"
                ' optimizer.step(lambda: {"generator": loss_of_G(), "discriminator":'
                " loss_of_D()}). Compute the losses inside of the function."
            )
    return MicroBatches(parts) if isinstance(closure, Sequence) else parts[0]


def check_arguments(optimizers: Mapping[str, Optimizer], rule: Rule) -> None:
    """Raise UsageError unless the rule is a rule and players are names → torch optimizers."""
    if isinstance(rule, type) or not isinstance(rule, Rule):
        given = rule.__name__ if isinstance(rule, type) else repr(rule)
        raise UsageError(
            f"rule={given} is not a rule. Pass an instance, such as"
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


def check_parameters(players: Players, rule: Rule) -> None:
    """Raise UsageError if the rule is not defined for a parameter: uninitialized, or complex."""
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
                    f" complex, but {type(rule).__name__} is defined for real numbers. Keep the"
                    " parameter as pairs of real numbers and use torch.view_as_complex in the"
                    " network."
                )


def check_compatible(player: str, optimizer: Optimizer, rule: Rule) -> None:
    """Raise UsageError if the optimizer of a player cannot apply the directions of the rule."""
    name, kind = type(rule).__name__, type(optimizer).__name__
    if isinstance(optimizer, LBFGS):
        raise UsageError(
            f'Player "{player}": LBFGS evaluates its own closure, which a game step does not have.'
            " Use any other optimizer."
        )
    if isinstance(optimizer, SparseAdam):
        raise UsageError(
            f'Player "{player}": SparseAdam accepts sparse gradients only, but rules return dense'
            " ones. Use Adam, and an Embedding with sparse=False."
        )

    if isinstance(optimizer, GradientOptimizer) and optimizer.needs_loss:
        inner = rule
        while isinstance(inner, Averaged | Lookahead):
            inner = inner.rule
        if not isinstance(inner, GradientDescent):
            raise UsageError(
                f'Player "{player}": this {kind} uses the value of the loss, but the directions of'
                f" {name} are not the gradient of that loss. Use it with GradientDescent, or choose"
                " another step size or average."
            )

    for group in optimizer.param_groups:
        if group.get("maximize"):
            raise UsageError(
                f'Player "{player}": maximize=True. Every player minimises its own loss; negate the'
                " loss instead."
            )
        if rule.output != "update":
            continue
        found, hint = kind, ""
        if isinstance(optimizer, SGD):
            options = [option for option in ("momentum", "weight_decay") if group[option]]
            if not options:
                continue
            settings = " and ".join(f"{option}={group[option]}" for option in options)
            found = f"SGD with {settings}"
            if group["momentum"] and "max_momentum" in group:
                hint = " A scheduler set the momentum: pass it cycle_momentum=False."
        raise UsageError(
            f'Player "{player}": {name} returns updates that already contain the learning rate, so'
            " its inner optimizer must be torch.optim.SGD without momentum and weight decay, not"
            f" {found}.{hint} Use SGD, or a rule whose output is a gradient."
        )


def warn_of_weight_decay(player: str, optimizer: Optimizer, rule: Rule) -> bool:
    """Warn if weight decay is combined with a rule of order 2; return whether it is."""
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
