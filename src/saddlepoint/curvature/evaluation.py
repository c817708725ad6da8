"""What is known about a game at one point. The only place where losses are differentiated with respect to parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from saddlepoint.curvature.operators import Jacobian
from saddlepoint.curvature.traps import check_second_derivatives, node_names
from saddlepoint.errors import DivergenceError, DoubleBackwardError, UsageError, did_you_mean
from saddlepoint.game import Closure, Game, Players
from saddlepoint.ranks import Ranks
from saddlepoint.vectors import Tensors, Vector


@dataclass
class Cost:
    """What derivatives cost so far, counted in passes over one player's loss.

    Attributes:
        gradients: gradients of one player's loss; a joint gradient of an n-player game counts n.
        products: rows of Jacobian products; J @ v or J.T @ u of an n-player game counts n, one block J[i, j] counts 1.
        losses: evaluations of the closure.
    """

    gradients: int = 0
    products: int = 0
    losses: int = 0

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.gradients - other.gradients, self.products - other.products, self.losses - other.losses)

    @property
    def equivalents(self) -> float:
        """Gradient-equivalents: a loss with its gradient counts 1, of which the loss is ⅓, and a row of a Jacobian product 2.

        A convention that does not depend on the machine: backward costs twice forward, and a product goes back through the graph of a
        gradient. What steps cost in time is measured in docs/performance.md.
        """
        return self.losses / 3 + 2 * self.gradients / 3 + 2 * self.products

    def copy(self) -> Cost:
        """Return a snapshot that further counting does not change."""
        return replace(self)


class Evaluation:
    """Losses, gradient ξ and Jacobian J of a game at the current parameters.

    With f_i the loss and θ_i the parameters of player i, ξ_i = ∂_i f_i and J_ij = ∂_j ∂_i f_i. A one-player game has the
    gradient as ξ and the Hessian as J.

    Where several processes train together, the closure's losses are those of a share of the batch. Values that are handed out are means
    over the processes, each reduced once; what carries a graph is this process's own, and products pulled through it are reduced.

    Args:
        players: every player of the game with its parameters.
        closure: returns the losses of the players that move; these are the players of ξ and J.
        order: 0 for losses only, 1 for gradients, 2 where Jacobian products will follow (keeps the graph).
        cost: a counter to add to.
        finite: whether a loss that is NaN or infinite is an error.
        ranks: the processes that train together.

    Raises:
        UsageError: the closure returns an unknown player, no loss, or a loss that is not a scalar tensor.
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
    ) -> None:
        self.players = players
        self.order = order
        self._ranks = Ranks() if ranks is None else ranks
        self.cost = Cost() if cost is None else cost
        with torch.set_grad_enabled(order > 0):
            self.terms = _named_terms(closure(), players)
            self._losses = {player: _total(terms) for player, terms in self.terms.items()}
        self.cost.losses += 1
        self.losses = _values(self.terms, self._ranks, finite=finite)
        self.unused: dict[str, frozenset[int]] = {}
        self._gradient: Vector | None = None
        self._own: dict[str, Tensors] = {}  # with graphs, of this process's share
        self._graph_rows: dict[str, Vector] = {}
        self._means: dict[str, Vector] = {}  # over the processes
        self._rows: dict[str, Vector] = {}  # likewise

    @property
    def movers(self) -> tuple[str, ...]:
        """The players whose losses the closure returned, in its order."""
        return tuple(self._losses)

    @property
    def gradient(self) -> Vector:
        """ξ: each mover's gradient of its own loss, ξ_i = ∂_i f_i. Parameters that f_i does not use have zeros."""
        if self._gradient is None:
            started = [self._start_own(player) for player in self.movers]  # each is on its way while the next is being taken
            self._gradient = Vector({player: own for finish in started for player, own in finish().items()})
        return self._gradient

    def gradient_of(self, player: str) -> Vector:
        """ξ_i alone, where the other players' gradients are not needed."""
        return self._start_own(player)()

    def graph_gradient_of(self, player: str) -> Tensors:
        """ξ_i of this process's share with its graph (order 2), from which Jacobian products are taken."""
        if player not in self._own:
            row = self._graph_rows.get(player)
            self._own[player] = (self._gradient_of(player, (player,)) if row is None else row)[player]
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

    def uses_batch_statistics(self) -> bool:
        """Say whether a loss goes through BatchNorm in training mode, which moves buffers at every evaluation."""
        return any(name.startswith(("NativeBatchNorm", "CudnnBatchNorm")) for name in node_names(self._losses.values()))

    def row(self, player: str) -> Vector:
        """∇f_i with respect to the parameters of all movers."""
        if player not in self._rows:
            local, own = self.graph_row(player).detach(), self.gradient_of(player)
            others = [other for other in self.movers if other != player]
            across = self._ranks.mean(local.only(others)) if others else own
            self._rows[player] = Vector({other: (own if other == player else across)[other] for other in self.movers})
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

    def pull(self, outputs: Sequence[Tensor], weights: Sequence[Tensor], players: Iterable[str], *, rows: int) -> Vector:
        """Return ∂⟨outputs, weights⟩ with respect to the parameters of ``players``; it counts as ``rows`` product rows."""
        self.cost.products += rows
        live = [(output, weight) for output, weight in zip(outputs, weights, strict=True) if output.requires_grad]
        inputs = {player: self.players[player] for player in players}
        if not live:  # in every process alike: it depends on the networks, not on the samples
            return Vector(inputs).zeros()
        return self._ranks.mean(self._differentiate([o for o, _ in live], [w for _, w in live], inputs, keep=True)[0])

    def _gradient_of(self, player: str, players: tuple[str, ...]) -> Vector:
        if self.order == 0:
            raise UsageError("This evaluation has order 0 and knows losses only; evaluate with order 1 for gradients.")
        self.cost.gradients += 1
        inputs = {name: self.players[name] for name in players}
        loss = self._losses[player]
        if not loss.requires_grad:
            raise UsageError(
                f'The loss of player "{player}" does not depend on any parameter that requires gradients. '
                "Compute it inside the closure, without detach() or no_grad()."
            )
        last = len(self._own) == len(self.movers) - 1  # the graph that the losses share is kept until the last gradient
        gradient, unused = self._differentiate([loss], None, inputs, keep=self.order > 1 or not last)
        self.unused[player] = unused.get(player, frozenset())
        return gradient

    def _differentiate(
        self, outputs: list[Tensor], weights: list[Tensor] | None, inputs: Mapping[str, Sequence[Tensor]], *, keep: bool
    ) -> tuple[Vector, dict[str, frozenset[int]]]:
        """Call autograd, the one place that does; return the derivative and which inputs did not take part."""
        flat = [tensor for tensors in inputs.values() for tensor in tensors]
        create = self.order > 1 and weights is None
        try:
            found = torch.autograd.grad(outputs, flat, grad_outputs=weights, create_graph=create, retain_graph=keep, allow_unused=True)
        except RuntimeError as error:
            if any(phrase in str(error) for phrase in _REFUSALS):
                raise _without_second_derivative(error) from error
            raise
        pieces = iter(zip(flat, found, strict=True))
        parts, unused = {}, {}
        for player, tensors in inputs.items():
            own = [next(pieces) for _ in tensors]
            parts[player] = [torch.zeros_like(tensor) if grad is None else grad for tensor, grad in own]
            unused[player] = frozenset(index for index, (_, grad) in enumerate(own) if grad is None)
        return Vector(parts), unused


def linearize(game: Game) -> Evaluation:
    """Return losses, gradient and Jacobian of a game at its current parameters.

    Raises:
        DoubleBackwardError: a loss contains an operation whose second derivative PyTorch refuses or gets wrong.

    >>> x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> point = linearize(Game({"x": [x]}, lambda: {"x": (x**2).sum()}))
    >>> point.gradient["x"][0].tolist(), point.jacobian.dense().tolist()
    ([2.0, 2.0], [[2.0, 0.0], [0.0, 2.0]])
    """
    point = Evaluation(game.players, game.losses)
    point.check_second_derivatives()
    return point


def _named_terms(returned: object, players: Players) -> dict[str, dict[str, Tensor]]:
    if not isinstance(returned, Mapping) or not returned:
        raise UsageError(f"The closure must return a mapping of player → loss, not {type(returned).__name__}.")
    terms: dict[str, dict[str, Tensor]] = {}
    for player, loss in returned.items():
        if player not in players:
            raise UsageError(f'The closure returned a loss for the unknown player "{player}".' + did_you_mean(player, players))
        terms[player] = dict(loss) if isinstance(loss, Mapping) else {"": loss}
        if not terms[player]:
            raise UsageError(f'The closure returned no terms for the loss of player "{player}".')
        for term, value in terms[player].items():
            if not isinstance(value, Tensor) or value.numel() != 1:
                kind = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
                raise UsageError(f"{_where(player, term)} must be a scalar tensor, not {kind}. Reduce it, for example with .mean().")
    return terms


def _total(terms: dict[str, Tensor]) -> Tensor:
    first, *others = (term.reshape(()) for term in terms.values())
    for other in others:
        first = first + other
    return first


def _values(terms: dict[str, dict[str, Tensor]], ranks: Ranks, *, finite: bool) -> dict[str, float]:
    """Return the losses as numbers, with one transfer from the device for all of them."""
    stacked = torch.stack([value.detach().reshape(()).double() for named in terms.values() for value in named.values()])
    numbers = iter(ranks.mean_numbers(stacked).tolist())
    losses = {}
    for player, named in terms.items():
        values = {term: next(numbers) for term in named}
        for term, value in values.items():
            if finite and not math.isfinite(value):
                raise DivergenceError(f"{_where(player, term)} is {value}. No parameter was changed.", player=player, term=term or None)
        losses[player] = sum(values.values())
    return losses


def _where(player: str, term: str) -> str:
    return f'Term "{term}" of the loss of player "{player}"' if term else f'The loss of player "{player}"'


_REFUSALS = ("double backward", "is not implemented", "once_differentiable")


def _without_second_derivative(error: RuntimeError) -> DoubleBackwardError:
    return DoubleBackwardError(
        "A network contains an operation without a second derivative, which this rule needs. PyTorch says: "
        f"{str(error).splitlines()[0]} Remedies: use the network before torch.compile, run attention under "
        "torch.nn.attention.sdpa_kernel(SDPBackend.MATH), or choose a first-order rule."
    )
