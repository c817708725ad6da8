"""Losses, gradient and Jacobian of a game at one point.

All derivatives of losses with respect to parameters are taken here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import Node

from saddlepoint.curvature.backward_check import check_backward
from saddlepoint.curvature.double_backward import (
    check_second_derivatives,
    custom_functions,
    node_names,
    reached_leaves,
)
from saddlepoint.curvature.operators import Jacobian
from saddlepoint.curvature.replay import Replay, displaced
from saddlepoint.distributed import SingleProcess
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
    select_losses,
    total,
)
from saddlepoint.vectors import Tensors, Vector, norms_by_player

_NO_SECOND_DERIVATIVE = ("double backward", "is not implemented", "once_differentiable")
"""Parts of PyTorch's messages where an operation has no second derivative."""


@dataclass
class Cost:
    """Counts of losses, gradients and Jacobian products.

    Attributes:
        gradients: gradients of one player's loss; the gradient ξ of an n-player game counts n.
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
        """The cost in gradient equivalents: losses / 3 + 2 · gradients / 3 + 2 · products.

        A loss with its gradient counts 1. The convention does not depend on the machine: a backward
        pass counts as two forward passes, and a Jacobian product as a backward pass through the
        graph of a gradient.
        """
        return self.losses / 3 + 2 * self.gradients / 3 + 2 * self.products

    def copy(self) -> Cost:
        """Return a copy, which further counting does not change."""
        return replace(self)


class Linearization:
    """Losses, gradient ξ and Jacobian J of a game at the current parameters.

    With f_i the loss and θ_i the parameters of player i, ξ_i = ∂_i f_i and J_ij = ∂_j ∂_i f_i. A
    one-player game has the gradient as ξ and the Hessian as J. Everything but the losses is
    computed when it is first read.

    Where several processes train together, the closure's losses are those of a part of the batch.
    Public values are means over the processes, each reduced once; tensors with a graph belong to
    this process, and products computed from them are reduced.

    Args:
        players: every player of the game with its parameters.
        closure: returns the losses of the players that move; these are the players of ξ and J.
        order: 0 for losses only, 1 for gradients, 2 for Jacobian products too (keeps the graph).
        cross: whether J @ v across players will be computed; see ``Rule.cross``. Each loss is then
            differentiated with respect to all players in the pass that gives the gradient; without
            it, such a product costs one gradient more per player.
        cost: the counter to which costs are added; a new one by default.
        check_finite: whether a loss that is NaN or infinite is an error.
        distributed: the processes that train together; this one alone by default.
        graph: whether to build a graph of the losses at order 0 too, for closures that call
            autograd themselves.
        only: the players whose losses are used; all that the closure returns by default.
        accumulate: whether the closures of ``MicroBatches`` are differentiated one after the other,
            with one graph in memory at a time; orders 0 and 1.

    Attributes:
        active: the players whose losses the closure returned and that have parameters to move, in
            the order of ``players``.
        players_with_losses: the players whose losses the closure returned.
        unused: player → indices of the parameters that its gradient does not depend on.

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
        cross: bool = False,
        cost: Cost | None = None,
        check_finite: bool = True,
        distributed: SingleProcess | None = None,
        graph: bool = True,
        only: Collection[str] | None = None,
        accumulate: bool = False,
    ) -> None:
        self.players = players
        self.order, self.cross = order, cross
        self._graph = graph or order > 0
        self._distributed = SingleProcess() if distributed is None else distributed
        self.cost = Cost() if cost is None else cost
        self.unused: dict[str, frozenset[int]] = {}
        self._gradient: Vector | None = None
        # with graphs, of this process's share: player → ξ_i, player → ∇f_i
        self._own_gradients: dict[str, Tensors] = {}
        self._loss_gradients: dict[str, Vector] = {}
        # means over the processes
        self._mean_gradients: dict[str, Vector] = {}
        self._mean_loss_gradients: dict[str, Vector] = {}
        self._losses: dict[str, Tensor] = {}
        self._norms: Tensor | None = None
        self._terms: dict[str, dict[str, float]] | None = None
        if accumulate and isinstance(closure, MicroBatches):
            terms = self._accumulate(closure, only)
        else:
            with torch.set_grad_enabled(self._graph):
                terms = self._order_terms(read_terms(select_losses(closure(), only)))
                losses = {player: total(own) for player, own in terms.items()}
            if order == 0:
                losses = {player: loss.detach() for player, loss in losses.items()}
            self._losses = losses
            self.cost.losses += 1
        self.players_with_losses = tuple(terms)
        self.active = tuple(player for player in terms if players[player])
        self.term_names: list[tuple[str, str]] = []
        values = []
        for player, named in terms.items():
            for term, value in named.items():
                self.term_names.append((player, term))
                values.append(value.detach().reshape(()).double())
        local = torch.stack(values)
        # the values of the losses' terms on the device, shape (terms,)
        self.numbers = self._distributed.all_reduce_mean(local)
        if check_finite:
            self.check_finite()

    def _order_terms(self, returned: Terms) -> Terms:
        """Return terms in the order of the players, whatever the closure's order is."""
        for player in returned:
            if player not in self.players:
                raise UsageError(
                    f'The closure returned a loss for the unknown player "{player}".'
                    + did_you_mean(str(player), self.players)
                )
        return {player: returned[player] for player in self.players if player in returned}

    @property
    def terms(self) -> dict[str, dict[str, float]]:
        """Player → named term of its loss → value; an unnamed loss has the name ""."""
        if self._terms is None:
            self.set_numbers(self.numbers.tolist())
            assert self._terms is not None
        return self._terms

    @property
    def losses(self) -> dict[str, float]:
        """Player → value of its loss, the sum of its terms."""
        return {player: sum(terms.values()) for player, terms in self.terms.items()}

    def set_numbers(self, numbers: Sequence[float]) -> None:
        """Set the values of the losses' terms, after a copy to the host together with others."""
        self._terms = {}
        for (player, term), value in zip(self.term_names, numbers, strict=True):
            self._terms.setdefault(player, {})[term] = value

    def check_finite(self) -> None:
        """Raise DivergenceError where a term of a loss is NaN or infinite."""
        for player, terms in self.terms.items():
            for term, value in terms.items():
                if not math.isfinite(value):
                    raise DivergenceError(
                        f"{describe_loss(player, term)} is {value}. No parameter was changed.",
                        player=player,
                        term=term or None,
                    )

    def take_gradient_norms(self) -> Tensor:
        """Return the norm of each parameter's gradient on the device, shape (tensors,)."""
        if self._norms is None:
            self._norms = self.gradient.tensor_norms()
        return self._norms

    @property
    def gradient_norms(self) -> dict[str, float]:
        """Player → ‖ξ_i‖."""
        sizes = {player: len(own) for player, own in self.gradient.items()}
        return norms_by_player(sizes, self.take_gradient_norms().tolist())

    @property
    def gradient(self) -> Vector:
        """ξ: each active player's gradient of its own loss, ξ_i = ∂_i f_i.

        Parameters that f_i does not depend on have zeros.
        """
        if self._gradient is None:
            # each reduction runs while the next gradient is computed
            started = [self._start_gradient(player) for player in self.active]
            parts: dict[str, Tensors] = {}
            for finish in started:
                parts.update(finish())
            self._gradient = Vector(parts)
        return self._gradient

    def gradient_of(self, player: str) -> Vector:
        """Return ξ_i alone, where the other players' gradients are not needed."""
        return self._start_gradient(player)()

    def _start_gradient(self, player: str) -> Callable[[], Vector]:
        """Compute ξ_i and begin its reduction; calling the result waits for it."""
        if player in self._mean_gradients:
            return partial(self._mean_gradients.__getitem__, player)
        own = Vector({player: self.gradient_with_graph(player)})
        wait = self._distributed.start_mean(own.detach() if self.order > 1 else own)

        def finish() -> Vector:
            self._mean_gradients[player] = wait()
            return self._mean_gradients[player]

        return finish

    def gradient_with_graph(self, player: str) -> Tensors:
        """Return ξ_i of this process's losses with its graph (order 2), for Jacobian products."""
        if player not in self._own_gradients:
            if self.cross or player in self._loss_gradients:
                found = self.loss_gradient_with_graph(player)
            else:
                found = self._differentiate_loss(player, (player,))
            self._own_gradients[player] = found[player]
        return self._own_gradients[player]

    def loss_gradient(self, player: str) -> Vector:
        """Return ∇f_i with respect to the parameters of all active players."""
        if player not in self._mean_loss_gradients:
            local = self.loss_gradient_with_graph(player).detach()
            own = self.gradient_of(player)
            others = [other for other in self.active if other != player]
            across = self._distributed.mean(local.only(others)) if others else own
            parts = {other: (own if other == player else across)[other] for other in self.active}
            self._mean_loss_gradients[player] = Vector(parts)
        return self._mean_loss_gradients[player]

    def loss_gradient_with_graph(self, player: str) -> Vector:
        """Return ∇f_i of this process's losses with its graph (order 2), for J @ v."""
        if player not in self._loss_gradients:
            self._loss_gradients[player] = self._differentiate_loss(player, self.active)
        return self._loss_gradients[player]

    def loss_gradient_through(self, player: str, nodes: Sequence[Node]) -> Vector:
        """Return the part of this process's ∇f_i that passes some nodes of the graph."""
        inputs = {name: self.players[name] for name in self.active}
        handles = [node.register_prehook(_zeros_like) for node in nodes]
        try:
            around, _ = self._differentiate([self._losses[player]], None, inputs, keep=True)
        finally:
            for handle in handles:
                handle.remove()
        return self.loss_gradient_with_graph(player).detach() - around.detach()

    def _accumulate(self, closure: MicroBatches, only: Collection[str] | None) -> Terms:
        """Add up the gradients of micro-batches; return the means of their losses' terms."""
        share = 1 / len(closure.parts)
        values: list[dict[str, dict[str, Tensor]]] = []
        for part in closure.parts:
            self._losses = {}  # releases the graph of the previous micro-batch
            found = Linearization(
                self.players,
                part,
                order=self.order,
                cost=self.cost,
                check_finite=False,
                graph=self._graph,
                only=only,
            )
            self._losses = found._losses
            values.append({})
            for (player, term), value in zip(found.term_names, found.numbers, strict=True):
                values[-1].setdefault(player, {})[term] = value
            for player in found.active if self.order > 0 else ():
                gradient = torch._foreach_mul(found.gradient[player], share)
                before, unused = self._own_gradients.get(player), found.unused[player]
                if before is not None:
                    gradient = torch._foreach_add(before, gradient)
                self._own_gradients[player] = tuple(gradient)
                self.unused[player] = self.unused.get(player, unused) & unused
            del found
        check_same_terms(values)
        means: Terms = {}
        for player, named in values[0].items():
            means[player] = {}
            for term in named:
                means[player][term] = torch.stack([part[player][term] for part in values]).mean()
        return means

    @property
    def jacobian(self) -> Jacobian:
        """J as a matrix-free operator, for J @ v, J.T @ u and products of its blocks."""
        return Jacobian(self)

    def check_second_derivatives(self) -> None:
        """Raise DoubleBackwardError where PyTorch has no correct second derivative."""
        check_second_derivatives(self._losses.values())

    def check_graph(self) -> None:
        """Raise UsageError where a loss was scaled or contains a reentrant checkpoint."""
        for player, loss in self._losses.items():
            check_scale(player, "", loss, depth=5)
        if any(name == "CheckpointFunction" for name in node_names(self._losses.values())):
            raise UsageError(
                "A loss contains torch.utils.checkpoint with use_reentrant=True, which works with"
                " backward() only: the parameters inside of it would get no gradient. Use"
                " checkpoint(..., use_reentrant=False)."
            )

    def reached(self, player: str) -> tuple[str, ...]:
        """Return the active players on whose parameters a player's loss depends, by its graph."""
        leaves = reached_leaves(self._losses[player])
        return tuple(
            other for other in self.active if not leaves.isdisjoint(map(id, self.players[other]))
        )

    def custom_functions(self) -> list[Node]:
        """Return the nodes of ``torch.autograd.Function`` classes in the losses' graphs."""
        return custom_functions(self._losses.values())

    def uses_batch_statistics(self) -> bool:
        """Return whether a loss uses BatchNorm in training mode, which changes buffers."""
        batch_norm = ("NativeBatchNorm", "CudnnBatchNorm")
        return any(name.startswith(batch_norm) for name in node_names(self._losses.values()))

    def vjp(
        self,
        outputs: Sequence[Tensor],
        weights: Sequence[Tensor],
        players: Iterable[str],
        *,
        rows: int,
    ) -> Vector:
        """Return ∂⟨outputs, weights⟩ with respect to the parameters of ``players``.

        Args:
            outputs: gradients with their graph.
            weights: one tensor for each output, with its shape.
            players: the players of the result.
            rows: how many rows of a Jacobian product it counts as.

        The result is the mean over the processes.
        """
        self.cost.products += rows
        inputs = {player: self.players[player] for player in players}
        live_outputs, live_weights = [], []
        for output, weight in zip(outputs, weights, strict=True):
            if output.requires_grad:
                live_outputs.append(output)
                live_weights.append(weight)
        if not live_outputs:  # in every process alike: it depends on the networks only
            return Vector(inputs).zeros()
        product, _ = self._differentiate(live_outputs, live_weights, inputs, keep=True)
        return self._distributed.mean(product)

    def _differentiate_loss(self, player: str, players: tuple[str, ...]) -> Vector:
        if self.order == 0:
            raise UsageError(
                "This linearization has order 0 and holds losses only; gradients need order 1."
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
        last = len(self._own_gradients) == len(self.active) - 1
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
        """Call autograd; return the derivative, and player → indices of the unused inputs."""
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
            if any(phrase in str(error) for phrase in _NO_SECOND_DERIVATIVE):
                raise DoubleBackwardError(
                    "A network contains an operation without a second derivative, which this rule"
                    f" needs. PyTorch says: {str(error).splitlines()[0]} Remedies: use the network"
                    " before torch.compile, run attention under"
                    " torch.nn.attention.sdpa_kernel(SDPBackend.MATH), or choose a first-order"
                    " rule."
                ) from error
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
                    " parameter in between. Clip, average and update outside of the closure."
                    f" PyTorch says: {str(error).splitlines()[0]}"
                ) from error
            for player, tensors in inputs.items():
                for index, parameter in enumerate(tensors):
                    if not parameter.requires_grad:
                        raise UsageError(
                            f'Parameter {index} of player "{player}", shape'
                            f" {tuple(parameter.shape)}, requires no gradient any more: the"
                            " closure called requires_grad_(False). Freeze and thaw parameters"
                            " between steps, not inside the closure."
                        ) from error
            raise
        gradients = iter(found)
        parts, unused = {}, {}
        for player, tensors in inputs.items():
            own: list[Tensor] = []
            missing: list[int] = []
            for index, tensor in enumerate(tensors):
                gradient = next(gradients)
                if gradient is None:
                    missing.append(index)
                    gradient = torch.zeros_like(tensor)
                elif gradient.layout != torch.strided:
                    raise UsageError(
                        f'Parameter {index} of player "{player}", shape {tuple(tensor.shape)}, has'
                        " a sparse gradient, which rules cannot combine with others. Use a dense"
                        " one: torch.nn.Embedding(..., sparse=False)."
                    )
                own.append(gradient)
            parts[player] = own
            unused[player] = frozenset(missing)
        return Vector(parts), unused


def _zeros_like(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(None if gradient is None else torch.zeros_like(gradient) for gradient in gradients)


def linearize(game: Game, *, cross: bool = False) -> Linearization:
    """Return losses, gradient and Jacobian of a game at its current parameters.

    Args:
        game: the players and their losses.
        cross: whether J @ v across players will be computed; see ``Linearization``.

    Raises:
        DoubleBackwardError: a loss contains an operation without a correct second derivative.

    >>> x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> found = linearize(Game({"x": [x]}, lambda: {"x": (x**2).sum()}))
    >>> found.losses, found.gradient["x"][0].tolist(), found.jacobian.dense().tolist()
    ({'x': 2.0}, [2.0, 2.0], [[2.0, 0.0], [0.0, 2.0]])
    """
    replay = Replay()
    found = Linearization(game.players, game.losses, cross=cross)
    found.check_second_derivatives()
    if not found.custom_functions():
        return found

    def losses_at(d: Vector) -> Mapping[str, float]:
        with displaced(game.players, d), replay.again():
            return Linearization(game.players, game.losses, order=0, check_finite=False).losses

    check_backward(found, losses_at)
    # the check changed the parameters and restored them, which invalidates the first graph
    with replay.again():
        return Linearization(game.players, game.losses, cross=cross)
