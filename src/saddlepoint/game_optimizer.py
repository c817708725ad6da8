"""GameOptimizer: one rule, and one ordinary torch optimizer per player."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
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
from saddlepoint.curvature import Cost, Linearization
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
from saddlepoint.rules.base import direction_method
from saddlepoint.rules.first_step import Verified, check_dependence
from saddlepoint.step_result import StepResult
from saddlepoint.vectors import Vector

InnerStates = dict[str, tuple[list[dict[str, Any]], dict[Tensor, Any]]]
"""player → the options of its optimizer's groups, and its optimizer's state."""


class GameOptimizer:
    """Train the players of a game with one rule and one torch optimizer each.

    ``step(closure)`` evaluates the closure, gets a direction d_i for each active player from the
    rule, writes it into ``.grad`` and calls the inner optimizers, θ_i ← θ_i − lr · d_i for plain
    SGD. Schedulers, parameter groups and hooks attach to the inner optimizers, as in any GAN
    script. The keys of the mapping that the closure returns determine who moves: all players in
    simultaneous training, one at a time in alternating training.

    Args:
        optimizers: player → torch optimizer over that player's parameters.
        rule: turns gradients and curvature into directions; by default ``GradientDescent()``, the
            plain training loop.
        modules: networks whose buffers (BatchNorm statistics, spectral norm vectors) must change
            once per step also under rules that evaluate the closure more than once.
        generators: random generators that the closure draws from; their states are replayed in
            further evaluations of a step, as that of torch's global generator is.
        check_finite: whether to check, before a parameter moves, that losses and directions are
            finite. This copies a few numbers from the device once a step. With False the step
            copies nothing before its result is read, and a loss that is NaN makes parameters NaN;
            rules that solve linear systems check their losses and solves in either case.
        distributed: the processes that train together, ``Distributed()`` under torchrun. The
            closure of each process returns the mean losses of its part of the batch. Networks must
            not be wrapped in DistributedDataParallel.

    Attributes:
        last: the StepResult of the latest step, or None.
        cost: the total Cost of all steps.
        unconverged: how many linear solves stopped before reaching their tol.

    Raises:
        UsageError: no players, a parameter with two owners, ``maximize=True``, LBFGS, or a rule
            whose output is an update with anything but plain SGD.

    >>> x, y = (torch.ones(1, requires_grad=True) for _ in range(2))
    >>> optimizers = {"x": torch.optim.SGD([x], lr=0.1), "y": torch.optim.SGD([y], lr=0.1)}
    >>> optimizer = GameOptimizer(optimizers)
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
        self._verified = Verified()  # the checks of a player's first step that were made
        self.distributed = SingleProcess() if distributed is None else distributed
        self._decay_warned: set[str] = set()
        self._layout = Layout(self.optimizers)
        self._signature: list[Any] = []
        self.rule_state = RuleState(self._layout.names)
        self._owner = self.rule  # the rule to which ``rule_state`` belongs
        self._players()
        check_same_everywhere(self.distributed, self._layout.describe())

    def step(
        self, closure: Closure | Sequence[Closure], *, only: Iterable[str] | None = None
    ) -> StepResult:
        """Take one step for the players in the mapping that ``closure`` returns.

        The closure computes losses only: no ``zero_grad``, no ``backward``, no ``detach`` between
        the players.

        Args:
            closure: returns player → loss; or a sequence with one closure for each micro-batch, of
                equal sizes, for gradient accumulation. The step is that of the mean of their
                losses, under every rule. Rules of order 0 and 1 have one graph in memory at a time,
                curvature rules all of them.
            only: the players that move although the rule needs all of them, for example in a
                further step of a discriminator. They move along their own gradients, with the
                rule's preconditioner if it has one.

        Raises:
            UsageError: an unknown player, a missing one under a rule that needs all, a loss that is
                not a scalar, parameters that have gradients already, or parameter groups that were
                changed and no longer fit the rule.
            DivergenceError: a loss, a product in a solve or a direction is not finite; no parameter
                was changed.
        """
        if torch.is_inference_mode_enabled():
            raise UsageError(
                "step() was called under torch.inference_mode(), in which nothing can be"
                " differentiated. Call it outside."
            )
        closure = as_closure(closure)
        device = "cuda" if self._cuda else "cpu"
        precision: AbstractContextManager[Any] = nullcontext()
        if torch.is_autocast_enabled(device):
            # an autocast around the step applies to the losses; rules compute in full precision
            closure = under_autocast(closure, device, torch.get_autocast_dtype(device))
            precision = torch.autocast(device, enabled=False)
        with precision:
            players = self._players()
            self.rule.pre_step(players, self.rule_state)
            before, cost_before = self.rule_state.copy(), self.cost.copy()
            try:
                step = self._new_step(players, closure, only)
                direction = direction_method(self.rule, step)(step)
                result = self._check_direction(step, direction)
            except Exception:
                # a failed step leaves the rule's memory as it was
                self.rule_state.numbers = before.numbers
                self.rule_state.parameters = before.parameters
                self.rule_state.children = before.children
                raise
            first = step.first_linearization
            self._apply(direction, players, first.unused if self.rule.order < 2 else {}, first)
            self.rule.post_step(step)
        for name, info in step.solves.items():
            if info.status == "converged":
                continue
            if self.unconverged == 0:
                warnings.warn(
                    f'The solve "{name}" of {type(self.rule).__name__} ended as "{info.status}"'
                    f" after {info.products} products, at a relative residual of"
                    f" {info.residual:.1e}; its best iterate was used. Such solves are counted in"
                    " optimizer.unconverged; raise the rule's max_iter or tol to avoid them."
                    " This warning is given once.",
                    SolverWarning,
                    stacklevel=2,
                )
            self.unconverged += 1
        result.cost = self.cost - cost_before
        self.last = result
        return result

    def _new_step(self, players: Players, closure: Closure, only: Iterable[str] | None) -> Step:
        """Return the step as its rule sees it; nothing is evaluated yet."""
        trainable = [player for player, own in players.items() if own]
        evaluates_again = self.rule.evaluates_again or (
            self.rule.order == 2 and self._verified.due("second derivatives", trainable)
        )
        replay = None
        if evaluates_again:
            replay = Replay(self._modules, self._generators, cuda=self._cuda)
        if only is not None:
            if not isinstance(only, Iterable):
                raise UsageError(
                    f'only={only!r} must be names of players, such as only=["discriminator"].'
                )
            only = (only,) if isinstance(only, str) else tuple(only)
            if not only:
                raise UsageError(
                    "only=[] names no player. Leave it out, or name the players that move, such as"
                    ' only=["discriminator"].'
                )
            for player in only:
                if player not in self.optimizers:
                    raise UsageError(
                        f'only={list(only)}: no player "{player}".'
                        + did_you_mean(str(player), self.optimizers)
                    )
        return Step(
            players,
            closure,
            rule=self.rule,
            inner=self,
            state=self.rule_state,
            replay=replay,
            cost=self.cost,
            modules=self._modules,
            only=only,
            verified=self._verified,
            distributed=self.distributed,
        )

    def _check_direction(self, step: Step, direction: Vector) -> StepResult:
        """Return the step's result; no parameter has moved yet."""
        first = step.first_linearization
        if set(direction) != set(first.active):
            raise UsageError(
                f"{type(self.rule).__name__} returned directions for {sorted(direction)}, but the"
                f" players that move are {sorted(first.active)}. A rule returns one direction for"
                " each of these players."
            )
        result = StepResult(first, direction, solves=step.solves)
        if self.check_finite:
            self._check_losses(step, result)
        for name, info in step.solves.items():
            if info.status == "non_finite":
                raise DivergenceError(
                    f'The solve "{name}" of {type(self.rule).__name__} met a number that is not'
                    f" finite, in the gradient or in product {info.products}. No parameter was"
                    " changed. Lower the learning rate, or look for a term of the loss, or a"
                    " layer, whose first or second derivative overflows.",
                    player=name if name in direction else next(iter(direction)),
                )
        if self.check_finite:
            self._check_norms(direction, result)
        couples = self.rule.needs_all_players and self.rule.order == 2
        # without second derivatives, a rule that couples players did not use them in this step
        if first.order > 0 and not (couples and first.order < 2):
            coupled = couples and len(first.active) > 1
            kind = "coupling" if coupled else "gradient"
            if self._verified.due(kind, first.active):
                check_dependence(first, rule=type(self.rule).__name__, coupled=coupled)
                self._verified.add(kind, first.active)
        if any(parameter.requires_grad for parameter in self._layout.frozen):
            raise UsageError(
                "The closure called requires_grad_(True) on a parameter that was frozen when the"
                " step began; this step would not move it. Freeze and thaw parameters between"
                " steps, not inside the closure."
            )
        return result

    def _check_losses(self, step: Step, result: StepResult) -> None:
        """Copy losses and norms from the device at once; raise DivergenceError for a bad loss."""
        unchecked = step.take_unchecked()
        remaining = iter(result.read([found.numbers for found in unchecked]))
        for found in unchecked:
            found.set_numbers([next(remaining) for _ in found.term_names])
            found.check_finite()

    def _check_norms(self, direction: Vector, result: StepResult) -> None:
        """Raise DivergenceError unless every player's direction is finite."""
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

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all inner optimizers, player after player."""
        groups = []
        for optimizer in self.optimizers.values():
            groups += optimizer.param_groups
        return groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients of a ``backward()`` outside of ``step``, which itself leaves none."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=set_to_none)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Raise UsageError; ``torch.amp.GradScaler.step`` reads this property first."""
        raise UsageError(
            "torch.amp.GradScaler cannot step a GameOptimizer: rules multiply gradients with each"
            " other, so that the scale would be squared. Use torch.autocast with torch.bfloat16"
            " inside the closure, which needs no scaler, and call optimizer.step(closure)."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the inner optimizers and the rule, and the counters.

        It also describes rule, parameters and optimizers, which ``load_state_dict`` compares.
        """
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
        """Load a state that ``state_dict`` returned.

        Raises:
            UsageError: the state belongs to another rule or one with other options, or to other
                players, parameters or optimizers. The message names the first difference, and this
                optimizer is unchanged.
        """
        self._players()
        check_state(state, self.state_dict())
        previous = self._inner_states()
        try:
            for player, optimizer in self.optimizers.items():
                optimizer.load_state_dict(match_by_name(state["optimizers"][player], optimizer))
        except Exception as error:
            self._restore(previous)
            raise UsageError(
                f"The state does not fit the optimizer of a player: {error} Nothing was loaded."
            ) from error
        self.rule_state.load_state_dict(state["rule_state"])
        self.cost = Cost(**state["cost"])
        self.unconverged = state["unconverged"]

    def _players(self) -> Players:
        """Return the parameters that move now.

        Where parameter groups or the rule have changed, this repeats the checks of the constructor.
        """
        found = signature(self.optimizers, self.rule)
        if found == self._signature:
            return self._layout.players
        check_arguments(self.optimizers, self.rule)
        if rule_classes(self.rule) != rule_classes(self._owner):
            raise UsageError(
                f"The rule was {type(self._owner).__name__} and is {type(self.rule).__name__} now;"
                " it cannot use the state of the other. Build a new GameOptimizer with the same"
                " inner optimizers."
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
        self._cuda = False
        for parameters in layout.players.values():
            if any(parameter.is_cuda for parameter in parameters):
                self._cuda = True
        self._signature = found
        return layout.players

    def lrs(self) -> dict[str, list[float]]:
        """Return player → the learning rate of each parameter that moves."""
        lrs: dict[str, list[float]] = {}
        for player, optimizer in self.optimizers.items():
            lrs[player] = []
            for group in optimizer.param_groups:
                lr = float(group["lr"])
                lrs[player] += [lr for parameter in group["params"] if parameter.requires_grad]
        return lrs

    def advance(self, direction: Vector, unused: Mapping[str, frozenset[int]]) -> None:
        """Let the inner optimizers move the players of ``direction``, as a trial step."""
        self._apply(direction, self._layout.players, unused if self.rule.order < 2 else {}, None)

    @contextmanager
    def restoring_state(self) -> Iterator[None]:
        """Restore the state of the inner optimizers when the block ends."""
        previous = self._inner_states()
        try:
            yield
        finally:
            self._restore(previous)

    def _inner_states(self) -> InnerStates:
        """Return copies of the inner optimizers' options and states.

        Loading a ``state_dict`` would round some states to the dtype of their parameters.
        """
        states: InnerStates = {}
        for player, optimizer in self.optimizers.items():
            options = [dict(group) for group in optimizer.param_groups]
            for group in options:
                del group["params"]
            entries = {parameter: deepcopy(entry) for parameter, entry in optimizer.state.items()}
            states[player] = options, entries
        return states

    def _restore(self, states: InnerStates) -> None:
        """Restore options and states in place: schedulers hold the same groups."""
        for player, (options, state) in states.items():
            optimizer = self.optimizers[player]
            for group, before in zip(optimizer.param_groups, options, strict=True):
                group.update(before)
            optimizer.state.clear()
            optimizer.state.update(state)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Hold the parameters at their average within the block.

        The average is that of the rule ``Averaged``, else that of the inner optimizers.

        Raises:
            UsageError: neither keeps an average, or no step was taken yet.
        """
        keepers = [
            inner
            for inner in self.optimizers.values()
            if isinstance(inner, GradientOptimizer) and inner.keeps_average
        ]
        self._players()
        parameters: list[Tensor] = []
        averages: list[Tensor] = []
        if isinstance(self.rule, Averaged):
            by_player = self._layout.parameters
            for player, own in self.rule.averages(self.rule_state, by_player).items():
                parameters += [by_player[player][name] for name in own]
                averages += own.values()
        with ExitStack() as stack:
            if averages:
                stack.enter_context(temporary_values(parameters, averages))
            elif keepers:
                for keeper in keepers:
                    stack.enter_context(keeper.averaged())
            else:
                raise UsageError(
                    "There is no average. Wrap the rule as Averaged(rule), or use optimizers that"
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
        first: Linearization | None,
    ) -> None:
        """Write directions into ``.grad``, call the inner optimizers, and clear ``.grad``.

        ``unused`` parameters are skipped, as by an optimizer after ``backward``. ``first`` has the
        losses for optimizers that need them; None in a trial step.
        """
        taken: set[int] = set()
        try:
            for player, tensors in direction.items():
                skipped = unused.get(player, frozenset())
                pairs = zip(players[player], tensors, strict=True)
                for index, (parameter, tensor) in enumerate(pairs):
                    if index in skipped:
                        parameter.grad = None
                        continue
                    parameter.grad = _as_gradient(tensor, parameter, taken)
                    hooks = getattr(parameter, "_post_accumulate_grad_hooks", None)
                    for hook in tuple(hooks.values()) if hooks else ():
                        hook(parameter)
            for player in direction:
                optimizer = self.optimizers[player]
                loss = None
                if (
                    first is not None
                    and isinstance(optimizer, GradientOptimizer)
                    and optimizer.needs_loss
                ):
                    loss = partial(first.losses.__getitem__, player)
                try:
                    if loss is None:
                        optimizer.step()
                    else:
                        optimizer.step(loss)
                except TypeError as error:
                    if "closure" not in str(error):
                        raise
                    raise UsageError(
                        f'Player "{player}": {type(optimizer).__name__} needs a closure for its'
                        f" step, which a game step does not have ({error}). Use an optimizer that"
                        " steps by the gradient."
                    ) from error
        finally:
            for player in direction:
                for parameter in players[player]:
                    parameter.grad = None


def _as_gradient(tensor: Tensor, parameter: Tensor, taken: set[int]) -> Tensor:
    """Return a tensor as ``backward`` stores gradients: with the parameter's strides, unshared.

    Fused optimizers read parameter and gradient as flat memory, so other strides would pair the
    wrong entries. Autograd may return tensors that share memory or are broadcast; ``taken`` has the
    memory of the gradients so far.
    """
    memory = tensor.untyped_storage().data_ptr()
    if memory not in taken and tensor.stride() == parameter.stride():
        taken.add(memory)
        return tensor
    # a parameter whose entries have gaps or overlap gets a contiguous gradient
    like, expected = parameter, 1
    for stride, size in sorted(zip(parameter.stride(), parameter.shape, strict=True)):
        if size != 1 and stride != expected:
            like = parameter.contiguous()
            break
        expected *= size
    return torch.empty_like(like, memory_format=torch.preserve_format).copy_(tensor)
