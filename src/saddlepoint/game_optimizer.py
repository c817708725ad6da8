"""One rule and one ordinary torch optimizer per player: the rule's direction becomes ``.grad``, the inner optimizer applies it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from saddlepoint.compatibility import (
    as_closure,
    as_generators,
    as_modules,
    as_players,
    check_arguments,
    check_compatible,
    check_parameters,
    warn_of_weight_decay,
)
from saddlepoint.curvature import Cost, Linearization, SolveInfo
from saddlepoint.curvature.replay import Replay
from saddlepoint.distributed import SingleProcess, check_plain, check_same_everywhere
from saddlepoint.errors import DivergenceError, SolverWarning, UsageError, did_you_mean
from saddlepoint.game import Closure, Players, check_owners, under_autocast
from saddlepoint.layout import Layout, signature
from saddlepoint.optim import GradientOptimizer
from saddlepoint.optim.base import temporary_values
from saddlepoint.optim.state_dict import match_by_name
from saddlepoint.optimizer_state import check_state, optimizer_class, rule_classes, rule_options
from saddlepoint.rules import Averaged, GradientDescent, Rule, RuleState, Step
from saddlepoint.rules.base import find_direction
from saddlepoint.rules.first_step import Verified, check_dependence
from saddlepoint.step_result import StepResult
from saddlepoint.vectors import Vector

Saved = dict[str, tuple[list[dict[str, Any]], dict[Tensor, Any]]]
"""player → the options of its optimizer's groups, and its optimizer's state."""


class GameOptimizer:
    """Train the players of a game with one rule and one torch optimizer each.

    ``step(closure)`` evaluates the closure, asks the rule for each mover's direction d_i, writes it
    into ``.grad`` and lets the inner optimizers apply it, θ_i ← θ_i − lr · d_i for plain SGD.
    Schedulers, parameter groups and hooks attach to the inner optimizers, as in any GAN script. The
    keys of the mapping that the closure returns say who moves: all players for simultaneous
    training, one for its turn in alternating training.

    Args:
        optimizers: player → torch optimizer over that player's parameters.
        rule: turns gradients and curvature into directions; ``GradientDescent()``, the plain training
            loop, when left out.
        modules: networks whose buffers (BatchNorm statistics, spectral norm vectors) must move once
            per step also under rules that evaluate the closure more than once.
        generators: random generators that the closure draws from; such rules replay them, as they
            replay torch's global one.
        check_finite: whether to check, before a parameter moves, that losses and directions are
            finite. It copies a few numbers from the device once a step. False saves that
            synchronisation: the step copies nothing before its result is read, and a loss that is
            NaN goes into the parameters.
        distributed: the processes that train together, ``Distributed()`` under torchrun; each one's
            closure has the losses of its share of the batch, as means over it. Networks stay as
            they are, without a DistributedDataParallel around them.

    Attributes:
        last: the StepResult of the latest step, or None.
        cost: the total Cost of all steps.
        unconverged: how many linear solves stopped before their tol.

    Raises:
        UsageError: no players, a parameter with two owners, ``maximize=True``, LBFGS, or a rule
            whose output is an update with anything but plain SGD.

    >>> x, y = (torch.ones(1, requires_grad=True) for _ in range(2))
    >>> optimizer = GameOptimizer({"x": torch.optim.SGD([x], lr=0.1), "y": torch.optim.SGD([y], lr=0.1)})
    >>> optimizer.step(lambda: {"x": (x * y).sum(), "y": -(x * y).sum()}).losses
    {'x': 1.0, 'y': -1.0}
    >>> round(x.item(), 3), round(y.item(), 3)
    (0.9, 1.1)
    """

    def __init__(
        self,
        optimizers: Mapping[str, Optimizer],
        rule: Rule | None = None,
        *,
        modules: Iterable[nn.Module] = (),
        generators: Iterable[torch.Generator] = (),
        check_finite: bool = True,
        distributed: SingleProcess | None = None,
    ) -> None:
        self.optimizers = as_players(optimizers)
        self.rule = GradientDescent() if rule is None else rule
        check_arguments(self.optimizers, self.rule)
        self.check_finite = check_finite
        self._modules, self._generators = as_modules(modules), as_generators(generators)
        self.cost = Cost()
        self.unconverged = 0
        self.last: StepResult | None = None
        self.closure_differentiates = False
        self._verified = Verified()  # a player's first step looks for what would be silently wrong
        self.distributed = SingleProcess() if distributed is None else distributed
        self._decay_warned: set[str] = set()
        self._layout = Layout(self.optimizers)
        self._signature: list[Any] = []
        self.rule_state = RuleState(self._layout.names)
        self._owner = self.rule  # of what the rule remembers
        self._players()
        check_same_everywhere(self.distributed, self._layout.describe())

    def step(
        self, closure: Closure | Sequence[Closure], *, only: Iterable[str] | None = None
    ) -> StepResult:
        """Take one step for the players in the mapping that ``closure`` returns.

        The closure computes losses only: no ``zero_grad``, no ``backward``, no ``detach`` between
        the players.

        Args:
            closure: returns player → loss; or one closure for each micro-batch of equal size, for
                gradient accumulation. The step is that of the mean of their losses, under every
                rule. Rules of order 0 and 1 have one graph in memory at a time, curvature rules all
                of them.
            only: the players that move, where others stay although the rule needs all of them: for
                a further step of a discriminator before the joint one. They take a step along their
                own gradients, in the metric of the rule where it has one.

        Raises:
            UsageError: an unknown player, a missing one under a rule that needs all, a loss that is
                not a scalar, or parameters that hold gradients already; or parameter groups were
                changed so that they no longer fit the rule.
            DivergenceError: a loss, a product in a solve or a direction is not finite; no parameter
                was changed.
        """
        if torch.is_inference_mode_enabled():
            raise UsageError(
                "step() was called under torch.inference_mode(), in which nothing can be"
                " differentiated. Call it outside."
            )
        whole = as_closure(closure)
        device = "cuda" if self._cuda else "cpu"
        if not torch.is_autocast_enabled(device):
            return self._step(whole, only)
        # what stands around the step is meant for the losses; what rules do with their gradients
        # keeps its precision
        with torch.autocast(device, enabled=False):
            return self._step(under_autocast(whole, device, torch.get_autocast_dtype(device)), only)

    def _step(self, closure: Closure, only: Iterable[str] | None) -> StepResult:
        players = self._players()
        self.rule.pre_step(players, self.rule_state)
        remembered = self.rule_state.copy()
        try:
            step, direction, result = self._find_direction(players, closure, only)
        except Exception:
            # a failed step leaves what the rule remembered as it was
            self.rule_state.numbers = remembered.numbers
            self.rule_state.parameters = remembered.parameters
            self.rule_state.children = remembered.children
            raise
        first = step.first_linearization
        self._apply(direction, players, first.unused if self.rule.order < 2 else {}, first)
        self.rule.post_step(step)
        self._warn_of_unconverged(step.solves)
        self.last = result
        return result

    def _find_direction(
        self, players: Players, closure: Closure, only: Iterable[str] | None
    ) -> tuple[Step, Vector, StepResult]:
        """Return the step, the rule's direction and the result; no parameter has moved yet."""
        before = self.cost.copy()
        moving = [player for player, own in players.items() if own]
        again = self.rule.evaluates_again or (
            self.rule.order == 2 and self._verified.due("second derivatives", moving)
        )
        step = Step(
            players,
            closure,
            rule=self.rule,
            inner=self,
            state=self.rule_state,
            replay=Replay(self._modules, self._generators, cuda=self._cuda) if again else None,
            cost=self.cost,
            modules=self._modules,
            only=None if only is None else self._known(only),
            verified=self._verified,
            distributed=self.distributed,
        )
        direction = find_direction(self.rule, step)
        first = step.first_linearization
        if set(direction) != set(first.active):
            raise UsageError(
                f"{type(self.rule).__name__} returned directions for {sorted(direction)}, but the"
                f" players that move are {sorted(first.active)}. A rule returns one direction for"
                " each of these players."
            )
        result = StepResult(first, direction, solves=step.solves)
        if self.check_finite:
            self._check_finite(step, direction, result)
        result.cost = self.cost - before
        self._check_dependence(first)
        if any(parameter.requires_grad for parameter in self._layout.frozen):
            raise UsageError(
                "The closure called requires_grad_(True) on a parameter that was frozen when the"
                " step began, and would not move it. Freeze and thaw parameters between steps, not"
                " inside the closure."
            )
        return step, direction, result

    def _check_finite(self, step: Step, direction: Vector, result: StepResult) -> None:
        """Raise DivergenceError unless losses, solves and directions are finite; one transfer."""
        unchecked = step.take_unchecked()
        remaining = iter(result.read([found.numbers for found in unchecked]))
        for found in unchecked:
            found.set_numbers([next(remaining) for _ in found.term_names])
            found.check_finite()
        for name, info in step.solves.items():
            if info.status == "non_finite":
                raise DivergenceError(
                    f'The solve "{name}" of {type(self.rule).__name__} met a number that is not'
                    f" finite, in the gradient or in product {info.products}. No parameter was"
                    " changed. Lower the learning rate, or look for a term of the loss, or a"
                    " layer, whose first or second derivative overflows.",
                    player=name if name in direction else next(iter(direction)),
                )
        for player, norm in result.direction_norms.items():
            if math.isfinite(norm):
                continue
            # squares of large finite numbers overflow too
            result.direction_norms[player] = direction.only([player]).length()
            if math.isfinite(result.direction_norms[player]):
                continue
            finite = [bool(tensor.isfinite().all()) for tensor in direction[player]]
            index = finite.index(False) if False in finite else 0
            name = self._layout.names[player][index]
            if name.replace(".", "").isdigit():
                name = f"parameter {name}"
            shape = tuple(self._layout.players[player][index].shape)
            raise DivergenceError(
                f'The update of player "{player}" is not finite: first in {name}, shape {shape}.'
                " No parameter was changed. Lower the learning rate, or look for a term of the"
                " loss whose gradient overflows.",
                player=player,
            )

    def _check_dependence(self, point: Linearization) -> None:
        couples = self.rule.needs_all_players and self.rule.order == 2
        # such a rule may move players in other steps
        if point.order == 0 or (couples and point.order < 2):
            return
        coupled = couples and len(point.active) > 1
        kind = "coupling" if coupled else "gradient"
        if self._verified.due(kind, point.active):
            check_dependence(point, rule=type(self.rule).__name__, coupled=coupled)
            self._verified.add(kind, point.active)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all inner optimizers, player after player, for what reads or sets learning rates."""
        return [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients that a ``backward()`` outside of ``step`` left; a step itself needs and leaves none."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=set_to_none)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Asked for by ``torch.amp.GradScaler.step`` before anything else."""
        raise UsageError(
            "torch.amp.GradScaler cannot step a GameOptimizer: rules multiply gradients with each"
            " other, and a scale would come out squared. Use torch.autocast with torch.bfloat16"
            " inside the closure, which needs no scaler, and call optimizer.step(closure)."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything a later step depends on: inner optimizers, the rule's memory, counters; and what they belong to."""
        self._players()
        return {
            "rule": type(self.rule).__name__,
            "rule_options": rule_options(self.rule),
            "rule_state": self.rule_state.state_dict(),
            "parameters": self._layout.describe(),
            "classes": {
                player: optimizer_class(optimizer) for player, optimizer in self.optimizers.items()
            },
            "optimizers": {
                player: optimizer.state_dict() for player, optimizer in self.optimizers.items()
            },
            "cost": asdict(self.cost),
            "unconverged": self.unconverged,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned, all of it or nothing.

        Raises:
            UsageError: the state belongs to another rule or one with other options, to other
                players, parameters or optimizers; the message names the first difference, and this
                optimizer is as it was.
        """
        self._players()
        check_state(state, self.state_dict())
        saved = self._saved()
        try:
            for player, optimizer in self.optimizers.items():
                optimizer.load_state_dict(match_by_name(state["optimizers"][player], optimizer))
        except Exception as error:
            self._put_back(saved)
            raise UsageError(
                f"The state does not fit the optimizer of a player: {error} Nothing was loaded."
            ) from error
        self.rule_state.load_state_dict(state["rule_state"])
        self.cost = Cost(**state["cost"])
        self.unconverged = state["unconverged"]

    def _players(self) -> Players:
        """Return the parameters that move now; check again what the constructor checks where parameter groups have changed."""
        found = signature(self.optimizers, self.rule)
        if found != self._signature:
            self._check()
            self._signature = found
        return self._layout.players

    def _check(self) -> None:
        check_arguments(self.optimizers, self.rule)
        if rule_classes(self.rule) != rule_classes(self._owner):
            raise UsageError(
                f"The rule was {type(self._owner).__name__} and is {type(self.rule).__name__} now;"
                " it cannot use what the other remembers. Build a new GameOptimizer around the"
                " same inner optimizers."
            )
        for player, optimizer in self.optimizers.items():
            check_compatible(player, optimizer, self.rule)
            if player not in self._decay_warned and warn_of_weight_decay(
                player, optimizer, self.rule
            ):
                self._decay_warned.add(player)
        layout = Layout(self.optimizers)
        check_owners(layout.players)
        check_plain(layout.players, self._modules)
        check_parameters(layout.players, self.rule)
        self.rule.validate(layout.players)
        for player in self._layout.parameters:
            self.rule_state.rename(player, self._layout.renamed(player, layout))
            if self._layout.names[player] != layout.names.get(player):
                self._verified.forget(player)
        self.rule_state.names.update(layout.names)
        self._layout = layout
        self._cuda = any(
            parameter.is_cuda for parameters in layout.players.values() for parameter in parameters
        )

    def _known(self, names: Iterable[str]) -> tuple[str, ...]:
        if not isinstance(names, Iterable):
            raise UsageError(
                f'only={names!r} must be names of players, such as only=["discriminator"].'
            )
        named = (names,) if isinstance(names, str) else tuple(names)
        if not named:
            raise UsageError(
                "only=[] names no player. Leave it out, or name those that move, such as"
                ' only=["discriminator"].'
            )
        for player in named:
            if player not in self.optimizers:
                raise UsageError(
                    f'only={list(named)}: no player "{player}".'
                    + did_you_mean(str(player), self.optimizers)
                )
        return named

    def lrs(self) -> dict[str, list[float]]:
        """Return player → the learning rate of each parameter that moves."""
        return {
            player: [
                float(group["lr"])
                for group in optimizer.param_groups
                for p in group["params"]
                if p.requires_grad
            ]
            for player, optimizer in self.optimizers.items()
        }

    def advance(self, direction: Vector, unused: Mapping[str, frozenset[int]]) -> None:
        """Move the players of ``direction`` by their inner optimizers; what they moved by stays in no ``.grad``."""
        self._apply(direction, self._layout.players, unused if self.rule.order < 2 else {}, None)

    @contextmanager
    def keeping_state(self) -> Iterator[None]:
        """Give the inner optimizers back the state that they had before."""
        saved = self._saved()
        try:
            yield
        finally:
            self._put_back(saved)

    def _saved(self) -> Saved:
        """Return copies of the inner optimizers' options and states; through ``load_state_dict`` torch would round some of them."""
        return {
            player: (
                [
                    {option: value for option, value in group.items() if option != "params"}
                    for group in optimizer.param_groups
                ],
                {parameter: deepcopy(entry) for parameter, entry in optimizer.state.items()},
            )
            for player, optimizer in self.optimizers.items()
        }

    def _put_back(self, saved: Saved) -> None:
        """Put options and states back into the very groups and states that the inner optimizers, and schedules, hold."""
        for player, (options, state) in saved.items():
            optimizer = self.optimizers[player]
            for group, before in zip(optimizer.param_groups, options, strict=True):
                group.update(before)
            optimizer.state.clear()
            optimizer.state.update(state)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Hold the parameters at the average that the rule ``Averaged`` or the inner optimizers keep, and put them back afterwards.

        Raises:
            UsageError: neither keeps one, or no step was taken yet.
        """
        keepers = [
            inner
            for inner in self.optimizers.values()
            if isinstance(inner, GradientOptimizer) and inner.keeps_average
        ]
        self._players()
        parameters = self._layout.parameters
        averages = (
            self.rule.averages(self.rule_state, parameters)
            if isinstance(self.rule, Averaged)
            else {}
        )
        with ExitStack() as stack:
            if averages:
                held = [
                    parameters[player][name] for player, own in averages.items() for name in own
                ]
                values = [average for own in averages.values() for average in own.values()]
                stack.enter_context(temporary_values(held, values))
            elif keepers:
                for keeper in keepers:
                    stack.enter_context(keeper.averaged())
            else:
                raise UsageError(
                    "There is no average: give the rule as Averaged(rule), or use optimizers that"
                    ' keep one, such as optim.Subgradient(..., average="ergodic"), and take a step'
                    " first."
                )
            yield

    @property
    def keeps_average(self) -> bool:
        """Whether the rule or an inner optimizer keeps an average of the iterates."""
        inner = any(
            isinstance(inner, GradientOptimizer) and inner.keeps_average
            for inner in self.optimizers.values()
        )
        return inner or isinstance(self.rule, Averaged)

    def _apply(
        self,
        direction: Vector,
        players: Players,
        unused: Mapping[str, frozenset[int]],
        point: Linearization | None,
    ) -> None:
        """Write ``.grad``, step, drop it. A parameter that a first-order rule found unused is skipped, as ``backward`` would."""
        taken: set[int] = set()
        try:
            for player, tensors in direction.items():
                skipped = unused.get(player, frozenset())
                for index, (parameter, tensor) in enumerate(
                    zip(players[player], tensors, strict=True)
                ):
                    parameter.grad = None if index in skipped else _owned(tensor, parameter, taken)
                    hooks = getattr(parameter, "_post_accumulate_grad_hooks", None)
                    for hook in (
                        tuple(hooks.values()) if hooks and parameter.grad is not None else ()
                    ):
                        hook(parameter)
            for player in direction:
                self._step_inner(player, point)
        finally:
            for player in direction:
                for parameter in players[player]:
                    parameter.grad = None

    def _step_inner(self, player: str, point: Linearization | None) -> None:
        optimizer = self.optimizers[player]
        try:
            if (
                point is not None
                and isinstance(optimizer, GradientOptimizer)
                and optimizer.needs_loss
            ):
                optimizer.step(partial(point.losses.__getitem__, player))
            else:
                optimizer.step()
        except TypeError as error:
            if "closure" not in str(error):
                raise
            raise UsageError(
                f'Player "{player}": {type(optimizer).__name__} needs a closure for its step, which'
                f" a game step does not have ({error}). Use an optimizer that steps by the"
                " gradient."
            ) from error

    def _warn_of_unconverged(self, solves: Mapping[str, SolveInfo]) -> None:
        for name, report in solves.items():
            if report.status == "converged":
                continue
            if self.unconverged == 0:
                warnings.warn(
                    f'The solve "{name}" of {type(self.rule).__name__} ended as "{report.status}"'
                    f" after {report.products} products, at a relative residual of"
                    f" {report.residual:.1e}; its best iterate was used. Such solves are counted in"
                    " optimizer.unconverged; raise the rule's max_iter or tol to avoid them."
                    " This warning is given once.",
                    SolverWarning,
                    stacklevel=4,
                )
            self.unconverged += 1


def _owned(tensor: Tensor, parameter: Tensor, taken: set[int]) -> Tensor:
    """Return the tensor with the strides of its parameter, as ``backward`` gives gradients, in memory of its own.

    Fused optimizers read parameter and gradient as flat memory: other strides would pair the wrong
    entries. Autograd may hand out memory that several gradients share, or that is broadcast.
    """
    memory = tensor.untyped_storage().data_ptr()
    if memory in taken or tensor.stride() != parameter.stride():
        like = parameter if _is_dense(parameter) else parameter.contiguous()
        return torch.empty_like(like, memory_format=torch.preserve_format).copy_(tensor)
    taken.add(memory)
    return tensor


def _is_dense(tensor: Tensor) -> bool:
    """Say whether a tensor's entries fill its memory without gaps or overlaps, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
