"""What is known about a game at one point. The only place where losses are differentiated with respect to parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import Node

from saddlepoint.curvature.backward_check import check_backward
from saddlepoint.curvature.operators import Jacobian
from saddlepoint.curvature.replay import Replay, displaced
from saddlepoint.curvature.traps import (
    check_second_derivatives,
    custom_functions,
    node_names,
    reached_leaves,
)
from saddlepoint.errors import DivergenceError, DoubleBackwardError, UsageError, did_you_mean
from saddlepoint.game import (
    Closure,
    Game,
    MicroBatches,
    Players,
    Terms,
    check_same_terms,
    check_scale,
    describe_loss,
    read_terms,
    total,
)
from saddlepoint.ranks import Ranks
from saddlepoint.vectors import Tensors, Vector


@dataclass
class Cost:
    """What derivatives cost so far, counted in passes over one player's loss.

    Attributes:
        gradients: gradients of one player's loss; a joint gradient of an n-player game counts n.
        products: rows of Jacobian products; J @ v or J.T @ u of an n-player game counts n, one
            block J[i, j] counts 1.
        losses: evaluations of the closure.
    """

    gradients: int = 0
    products: int = 0
    losses: int = 0

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.gradients - other.gradients,
            self.products - other.products,
            self.losses - other.losses,
        )

    @property
    def equivalents(self) -> float:
        """Gradient-equivalents: a loss with its gradient counts 1, of which the loss is ⅓, and a row of a Jacobian product 2.

        A convention that does not depend on the machine: backward costs twice forward, and a
        product goes back through the graph of a gradient. What steps cost in time is measured in
        docs/performance.md.
        """
        return self.losses / 3 + 2 * self.gradients / 3 + 2 * self.products

    def copy(self) -> Cost:
        """Return a snapshot that further counting does not change."""
        return replace(self)


class Evaluation:
    """Losses, gradient ξ and Jacobian J of a game at the current parameters.

    With f_i the loss and θ_i the parameters of player i, ξ_i = ∂_i f_i and J_ij = ∂_j ∂_i f_i. A
    one-player game has the gradient as ξ and the Hessian as J.

    Where several processes train together, the closure's losses are those of a share of the batch.
    Values that are handed out are means over the processes, each reduced once; what carries a graph
    is this process's own, and products pulled through it are reduced.

    Args:
        players: every player of the game with its parameters.
        closure: returns the losses of the players that move; these are the players of ξ and J.
        order: 0 for losses only, 1 for gradients, 2 where Jacobian products will follow (keeps the
            graph).
        cost: a counter to add to.
        finite: whether a loss that is NaN or infinite is an error.
        ranks: the processes that train together.
        graph: whether the closure may differentiate within itself also at order 0, which costs as
            much as a graph does.

    Attributes:
        movers: the players whose losses the closure returned and that have parameters to move, in
            the order of ``players``.

    Raises:
        UsageError: the closure returns an unknown player, no loss, or a loss that is not a scalar
            tensor.
        DivergenceError: a loss is NaN or infinite; the message names player and term.
    """

    def __init__(
        self,
        players: Players,
        closure: Closure,
        *,
        order: int = 2,
        cost: Cost | None = None,
        finite: bool = True,
        ranks: Ranks | None = None,
        graph: bool = True,
    ) -> None:
        self.players = players
        self.order, self._graph = order, graph or order > 0
        self._ranks = Ranks() if ranks is None else ranks
        self.cost = Cost() if cost is None else cost
        self.unused: dict[str, frozenset[int]] = {}
        self._gradient: Vector | None = None
        self._own: dict[str, Tensors] = {}  # with graphs, of this process's share
        self._graph_rows: dict[str, Vector] = {}
        self._means: dict[str, Vector] = {}  # over the processes
        self._rows: dict[str, Vector] = {}  # likewise
        self._losses: dict[str, Tensor] = {}
        self._norms: dict[str, float] | None = None
        self.terms = _values(self._evaluate(closure), self._ranks)
        if finite:
            _check_finite(self.terms)
        self.losses = {player: sum(terms.values()) for player, terms in self.terms.items()}
        self.movers = tuple(player for player in self._losses if players[player])

    def _evaluate(self, closure: Closure) -> Terms:
        with torch.set_grad_enabled(self._graph):
            terms = _known_terms(closure(), self.players)
            losses = {player: total(own) for player, own in terms.items()}
        self._losses = (
            losses if self.order > 0 else {player: loss.detach() for player, loss in losses.items()}
        )
        self.cost.losses += 1
        return terms

    @property
    def gradient_norms(self) -> dict[str, float]:
        """Player → ‖ξ_i‖, taken when first asked for."""
        if self._norms is None:
            self._norms = self.gradient.norms()
        return self._norms

    @property
    def gradient(self) -> Vector:
        """ξ: each mover's gradient of its own loss, ξ_i = ∂_i f_i. Parameters that f_i does not use have zeros."""
        if self._gradient is None:
            # each is on its way while the next is being taken
            started = [self._start_own(player) for player in self.movers]
            self._gradient = Vector(
                {player: own for finish in started for player, own in finish().items()}
            )
        return self._gradient

    def gradient_of(self, player: str) -> Vector:
        """ξ_i alone, where the other players' gradients are not needed."""
        return self._start_own(player)()

    def graph_gradient_of(self, player: str) -> Tensors:
        """ξ_i of this process's share with its graph (order 2), from which Jacobian products are taken."""
        if player not in self._own:
            row = self._graph_rows.get(player)
            self._own[player] = (self._gradient_of(player, (player,)) if row is None else row)[
                player
            ]
        return self._own[player]

    def _start_own(self, player: str) -> Callable[[], Vector]:
        if player in self._means:
            return partial(self._means.__getitem__, player)
        own = Vector({player: self.graph_gradient_of(player)})
        wait = self._ranks.start(own.detach() if self.order > 1 else own)

        def finish() -> Vector:
            self._means[player] = wait()
            return self._means[player]

        return finish

    @property
    def jacobian(self) -> Jacobian:
        """J as a matrix-free operator on the movers' parameters: J @ v, J.T @ u, J[i, j], J.interaction, J.own."""
        return Jacobian(self)

    def check_second_derivatives(self) -> None:
        """Raise DoubleBackwardError where a loss contains an operation whose second derivative PyTorch refuses or gets wrong."""
        check_second_derivatives(self._losses.values())

    def check_graph(self) -> None:
        """Raise UsageError where a loss was scaled, or contains an operation that ``torch.autograd.grad`` passes by in silence."""
        for player, loss in self._losses.items():
            check_scale(player, "", loss, depth=5)
        if any(name == "CheckpointFunction" for name in node_names(self._losses.values())):
            raise UsageError(
                "A loss contains torch.utils.checkpoint with use_reentrant=True, which works with"
                " backward() only: the parameters inside of it would get no gradient. Use"
                " checkpoint(..., use_reentrant=False)."
            )

    def reached(self, player: str) -> tuple[str, ...]:
        """The movers whose parameters take part in a player's loss, by the graph of the loss."""
        leaves = reached_leaves(self._losses[player])
        return tuple(
            other for other in self.movers if any(id(p) in leaves for p in self.players[other])
        )

    def custom_functions(self) -> list[Node]:
        """The nodes of ``torch.autograd.Function`` classes in the losses' graphs, whose backward may be anything."""
        return custom_functions(self._losses.values())

    def row_through(self, player: str, nodes: Sequence[Node]) -> Vector:
        """The part of ∇f_i that comes through some nodes of the loss's graph, of this process's share (order 2)."""
        inputs = {name: self.players[name] for name in self.movers}
        handles = [node.register_prehook(_without_gradient) for node in nodes]
        try:
            around, _ = self._differentiate([self._losses[player]], None, inputs, keep=True)
        finally:
            for handle in handles:
                handle.remove()
        return self.graph_row(player).detach() - around.detach()

    def uses_batch_statistics(self) -> bool:
        """Say whether a loss goes through BatchNorm in training mode, which moves buffers at every evaluation."""
        return any(
            name.startswith(("NativeBatchNorm", "CudnnBatchNorm"))
            for name in node_names(self._losses.values())
        )

    def row(self, player: str) -> Vector:
        """∇f_i with respect to the parameters of all movers."""
        if player not in self._rows:
            local, own = self.graph_row(player).detach(), self.gradient_of(player)
            others = [other for other in self.movers if other != player]
            across = self._ranks.mean(local.only(others)) if others else own
            self._rows[player] = Vector(
                {other: (own if other == player else across)[other] for other in self.movers}
            )
        return self._rows[player]

    def graph_row(self, player: str) -> Vector:
        """The same of this process's share with its graph (order 2), needed by J @ v across players.

        Ask for it before ``gradient`` where it will be needed: one backward pass then serves both.
        """
        if player not in self._graph_rows:
            self._graph_rows[player] = self._gradient_of(player, self.movers)
        return self._graph_rows[player]

    def rows(self) -> None:
        """Take ∇f_i of every mover with respect to all movers, the form that products J @ v need."""
        for player in self.movers:
            self.graph_row(player)

    def pull(
        self,
        outputs: Sequence[Tensor],
        weights: Sequence[Tensor],
        players: Iterable[str],
        *,
        rows: int,
    ) -> Vector:
        """Return ∂⟨outputs, weights⟩ with respect to the parameters of ``players``; it counts as ``rows`` product rows."""
        self.cost.products += rows
        live = [
            (output, weight)
            for output, weight in zip(outputs, weights, strict=True)
            if output.requires_grad
        ]
        inputs = {player: self.players[player] for player in players}
        if not live:  # in every process alike: it depends on the networks, not on the samples
            return Vector(inputs).zeros()
        return self._ranks.mean(
            self._differentiate([o for o, _ in live], [w for _, w in live], inputs, keep=True)[0]
        )

    def _gradient_of(self, player: str, players: tuple[str, ...]) -> Vector:
        if self.order == 0:
            raise UsageError(
                "This evaluation has order 0 and knows losses only; evaluate with order 1 for"
                " gradients."
            )
        self.cost.gradients += 1
        inputs = {name: self.players[name] for name in players}
        loss = self._losses[player]
        if not loss.requires_grad:
            raise UsageError(
                f'The loss of player "{player}" does not depend on any parameter that requires'
                " gradients. Compute it inside the closure, without detach() or no_grad()."
            )
        # the graph that the losses share is kept until the last gradient
        last = len(self._own) == len(self.movers) - 1
        gradient, unused = self._differentiate(
            [loss], None, inputs, keep=self.order > 1 or not last
        )
        self.unused[player] = unused.get(player, frozenset())
        return gradient

    def _differentiate(
        self,
        outputs: list[Tensor],
        weights: list[Tensor] | None,
        inputs: Mapping[str, Sequence[Tensor]],
        *,
        keep: bool,
    ) -> tuple[Vector, dict[str, frozenset[int]]]:
        """Call autograd, the one place that does; return the derivative and which inputs did not take part."""
        flat = [tensor for tensors in inputs.values() for tensor in tensors]
        create = self.order > 1 and weights is None
        try:
            found = torch.autograd.grad(
                outputs,
                flat,
                grad_outputs=weights,
                create_graph=create,
                retain_graph=keep,
                allow_unused=True,
            )
        except RuntimeError as error:
            if any(phrase in str(error) for phrase in _REFUSALS):
                raise _without_second_derivative(error) from error
            if "backward through the graph a second time" in str(error):
                raise UsageError(
                    "The graph of a loss was freed before its gradient was taken. The closure"
                    " called backward(), or returned a loss of an earlier call. Return the losses"
                    " without calling backward(); to differentiate inside the closure use"
                    " torch.autograd.grad(..., create_graph=True)."
                ) from error
            if weights is None and "modified by an inplace operation" in str(error):
                raise UsageError(
                    "The closure changes a tensor after the losses were computed from it, or a"
                    " parameter in between: clip, average and update outside of the closure."
                    f" PyTorch says: {str(error).splitlines()[0]}"
                ) from error
            _check_trainable(inputs, error)
            raise
        pieces = iter(zip(flat, found, strict=True))
        parts, unused = {}, {}
        for player, tensors in inputs.items():
            own = [next(pieces) for _ in tensors]
            _check_strided(player, own)
            parts[player] = [
                torch.zeros_like(tensor) if grad is None else grad for tensor, grad in own
            ]
            unused[player] = frozenset(index for index, (_, grad) in enumerate(own) if grad is None)
        return Vector(parts), unused


def _without_gradient(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(None if gradient is None else torch.zeros_like(gradient) for gradient in gradients)


class Accumulated(Evaluation):
    """Losses and gradient of a step in several micro-batches, one graph in memory at a time; orders 0 and 1."""

    def _evaluate(self, closure: Closure) -> Terms:
        assert isinstance(closure, MicroBatches)
        share = 1 / len(closure.parts)
        terms = [self._add(part, share) for part in closure.parts]
        check_same_terms(terms)
        means: Terms = {}
        for player, own in terms[0].items():
            values = {
                term: torch.tensor([part[player][term] for part in terms], dtype=torch.float64)
                for term in own
            }
            means[player] = {term: numbers.mean() for term, numbers in values.items()}
        return means

    def _add(self, part: Closure, share: float) -> dict[str, dict[str, float]]:
        """Add a micro-batch's share of the gradient, and return its losses."""
        self._losses = {}  # lets go of the graph before
        point = Evaluation(
            self.players, part, order=self.order, cost=self.cost, finite=False, graph=self._graph
        )
        self._losses = point._losses
        for player in point.movers if self.order > 0 else ():
            gradient = torch._foreach_mul(point.gradient[player], share)
            before, unused = self._own.get(player), point.unused[player]
            self._own[player] = tuple(
                gradient if before is None else torch._foreach_add(before, gradient)
            )
            self.unused[player] = self.unused.get(player, unused) & unused
        return point.terms


def linearize(game: Game) -> Evaluation:
    """Return losses, gradient and Jacobian of a game at its current parameters.

    Raises:
        DoubleBackwardError: a loss contains an operation whose second derivative PyTorch refuses or
            gets wrong.

    >>> x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> point = linearize(Game({"x": [x]}, lambda: {"x": (x**2).sum()}))
    >>> point.gradient["x"][0].tolist(), point.jacobian.dense().tolist()
    ([2.0, 2.0], [[2.0, 0.0], [0.0, 2.0]])
    """
    replay = Replay()
    point = Evaluation(game.players, game.losses)
    point.check_second_derivatives()
    if not point.custom_functions():
        return point

    def losses_at(d: Vector) -> Mapping[str, float]:
        with displaced(game.players, d), replay.again():
            return Evaluation(game.players, game.losses, order=0, finite=False).losses

    check_backward(point, losses_at)
    # the parameters were moved and put back, which the first graph does not forgive
    with replay.again():
        return Evaluation(game.players, game.losses)


def _known_terms(returned: object, players: Players) -> Terms:
    """Return the losses' terms in the order of ``players``, so that it does not matter in which order a closure lists them."""
    terms = read_terms(returned)
    for player in terms:
        if player not in players:
            raise UsageError(
                f'The closure returned a loss for the unknown player "{player}".'
                + did_you_mean(str(player), players)
            )
    return {player: terms[player] for player in players if player in terms}


def _values(terms: Terms, ranks: Ranks) -> dict[str, dict[str, float]]:
    """Return the terms as numbers, with one transfer from the device for all of them."""
    stacked = torch.stack(
        [
            value.detach().reshape(()).double()
            for named in terms.values()
            for value in named.values()
        ]
    )
    numbers = iter(ranks.mean_numbers(stacked).tolist())
    return {player: {term: next(numbers) for term in named} for player, named in terms.items()}


def _check_finite(losses: Mapping[str, Mapping[str, float]]) -> None:
    for player, terms in losses.items():
        for term, value in terms.items():
            if not math.isfinite(value):
                what = describe_loss(player, term)
                raise DivergenceError(
                    f"{what} is {value}. No parameter was changed.",
                    player=player,
                    term=term or None,
                )


def _check_trainable(inputs: Mapping[str, Sequence[Tensor]], error: Exception) -> None:
    for player, tensors in inputs.items():
        for index, parameter in enumerate(tensors):
            if not parameter.requires_grad:
                raise UsageError(
                    f'Parameter {index} of player "{player}", shape {tuple(parameter.shape)},'
                    " requires no gradient any more: the closure called requires_grad_(False)."
                    " Freeze and thaw parameters between steps, not inside the closure."
                ) from error


def _check_strided(player: str, gradients: Iterable[tuple[Tensor, Tensor | None]]) -> None:
    for index, (parameter, gradient) in enumerate(gradients):
        if gradient is not None and gradient.layout != torch.strided:
            raise UsageError(
                f'Parameter {index} of player "{player}", shape {tuple(parameter.shape)}, has a'
                " sparse gradient, which rules cannot combine with others. Use a dense one:"
                " torch.nn.Embedding(..., sparse=False)."
            )


_REFUSALS = ("double backward", "is not implemented", "once_differentiable")


def _without_second_derivative(error: RuntimeError) -> DoubleBackwardError:
    return DoubleBackwardError(
        "A network contains an operation without a second derivative, which this rule needs."
        f" PyTorch says: {str(error).splitlines()[0]} Remedies: use the network before"
        " torch.compile, run attention under torch.nn.attention.sdpa_kernel(SDPBackend.MATH), or"
        " choose a first-order rule."
    )
