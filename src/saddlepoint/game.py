"""A game: players and one loss for each, every player minimising its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from saddlepoint.errors import UsageError

Losses = Mapping[str, Tensor | Mapping[str, Tensor]]
"""player → loss; a loss is a scalar tensor or named scalar terms, which are summed."""

Closure = Callable[[], Losses]
"""Computes the losses of the players that move, at the current parameters."""

Players = dict[str, tuple[Tensor, ...]]
"""player → the parameters that it moves."""

Terms = dict[str, dict[str, Tensor]]
"""player → term → scalar; a loss without named terms has the one term ""."""


class MicroBatches:
    """A closure made of one closure for each micro-batch; its losses are the means of theirs.

    Args:
        parts: closures whose losses are means over micro-batches of equal size.

    Raises:
        UsageError: there is no part; when it is called, two parts have losses of different players,
            or different terms.

    >>> import torch
    >>> x = torch.ones(1, requires_grad=True)
    >>> MicroBatches([lambda: {"x": x.sum()}, lambda: {"x": 3 * x.sum()}])()["x"][""].item()
    2.0
    """

    def __init__(self, parts: Iterable[Closure]) -> None:
        self.parts = tuple(parts)
        if not self.parts:
            raise UsageError(
                "step([]): there is no closure. Give one closure for each micro-batch."
            )

    def __call__(self) -> Terms:
        found = [read_terms(part()) for part in self.parts]
        check_same_terms(found)
        means: Terms = {}
        for player, terms in found[0].items():
            means[player] = {}
            for term in terms:
                values = [part[player][term].reshape(()) for part in found]
                means[player][term] = torch.stack(values).mean()
        return means


def under_autocast(closure: Closure, device: str, dtype: torch.dtype) -> Closure:
    """Return the closure with its losses evaluated under ``torch.autocast``."""
    if isinstance(closure, MicroBatches):
        return MicroBatches(under_autocast(part, device, dtype) for part in closure.parts)

    def losses() -> Losses:
        # while autocast is on around the step, the cache has casts of earlier parameter values
        torch.clear_autocast_cache()
        with torch.autocast(device, dtype):
            return closure()

    return losses


def check_same_terms(parts: Sequence[Mapping[str, Mapping[str, object]]]) -> None:
    """Raise UsageError unless all micro-batches of a step have the same players and terms."""
    first = parts[0]
    for number, other in enumerate(parts[1:], start=2):
        for player in {**first, **other}:
            if first.get(player, {}).keys() != other.get(player, {}).keys():
                raise UsageError(
                    f"Micro-batches 1 and {number} of this step have different losses for player"
                    f' "{player}". Return the same players and the same terms from every closure of'
                    " a step."
                )


def select_losses(returned: object, only: Collection[str] | None) -> object:
    """Return the losses of some players, of those that a closure returned; all if ``only`` is None.

    Raises:
        UsageError: the closure returned none of them.
    """
    if only is None or not isinstance(returned, Mapping):
        return returned  # ``read_terms`` reports what is no mapping
    found = {player: loss for player, loss in returned.items() if player in only}
    if not found:
        theirs = ", ".join(f'"{player}"' for player in returned) or "no player"
        wanted = ", ".join(f'"{player}"' for player in only)
        raise UsageError(
            f"The closure returned the losses of {theirs}, but {wanted} should move. Return the"
            f" losses of {wanted} too."
        )
    return found


def read_terms(returned: object) -> Terms:
    """Return what a closure returned as player → term → scalar.

    Raises:
        UsageError: it is not a mapping, a loss has no terms, or is not a scalar tensor.
    """
    if not isinstance(returned, Mapping) or not returned:
        raise UsageError(
            f"The closure must return a mapping of player → loss, not {type(returned).__name__}."
        )
    terms: Terms = {}
    for player, loss in returned.items():
        terms[player] = dict(loss) if isinstance(loss, Mapping) else {"": loss}
        if not terms[player]:
            raise UsageError(f'The closure returned no terms for the loss of player "{player}".')
        for term, value in terms[player].items():
            what = describe_loss(player, term)
            if not isinstance(value, Tensor) or value.numel() != 1:
                kind = f"a {type(value).__name__}"
                if isinstance(value, Tensor):
                    kind = f"a tensor of shape {tuple(value.shape)}"
                raise UsageError(
                    f"{what} must be a scalar tensor, not {kind}. Reduce it, for example with"
                    " .mean()."
                )
            if value.is_complex():
                raise UsageError(
                    f"{what} is complex. A loss must be real; take .real or .abs() of it."
                )
            check_scale(player, term, value, depth=0)
    return terms


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of a loss's terms, without dimensions."""
    first, *others = (term.reshape(()) for term in terms.values())
    for other in others:
        first = first + other
    return first


def describe_loss(player: str, term: str) -> str:
    """Return the name of a player's loss, or of a term of it, in messages."""
    if term:
        return f'Term "{term}" of the loss of player "{player}"'
    return f'The loss of player "{player}"'


_MIN_LOSS_SCALE = 1024.0
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Mean", "Sum", "Neg", "View", "Stack", "Reshape")


def check_scale(player: str, term: str, value: Tensor, *, depth: int) -> None:
    """Raise UsageError where a loss seems to be multiplied by a GradScaler.

    Args:
        player: the player, for the message.
        term: the term of its loss, or "".
        value: the loss.
        depth: how many arithmetic operations of its graph are searched besides the last one.
    """
    if value.grad_fn is not None and _has_loss_scale(value.grad_fn, depth):
        raise UsageError(
            f"{describe_loss(player, term)} is multiplied by a large power of two, as"
            " torch.amp.GradScaler.scale does. The step would be multiplied too, and curvature by"
            " its square. Return the loss itself; for mixed precision use torch.autocast with"
            " torch.bfloat16, which needs no GradScaler."
        )


def _has_loss_scale(node: Node, depth: int) -> bool:
    """Return whether a graph multiplies by what looks like the scale of a GradScaler.

    That is a float32 tensor whose value is a large power of two; a number in the code is float64.
    """
    name = node.name()
    if name == "MulBackward0":
        try:
            factor = getattr(node, "_saved_other", None)
        except RuntimeError:  # the graph was freed; taking the gradient will raise an error for it
            factor = None
        if (
            isinstance(factor, Tensor)
            and factor.numel() == 1
            and factor.dtype == torch.float32
            and not factor.requires_grad
            and float(factor) >= _MIN_LOSS_SCALE
            and math.frexp(float(factor))[0] == 0.5
        ):
            return True
    if depth == 0 or not name.startswith(_ARITHMETIC):
        return False
    return any(
        earlier is not None and _has_loss_scale(earlier, depth - 1)
        for earlier, _ in node.next_functions
    )


class Game:
    """Players, each with its parameters and its own loss to minimise.

    Args:
        players: name → a module, or the tensors that the player moves. Tensors that do not require
            gradients are left out.
        losses: called without arguments, returns name → loss at the current parameters. A loss may
            be a mapping of named terms, which are summed.

    Raises:
        UsageError: no players, a player without parameters, or a parameter that two players own.

    >>> import torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> game = Game({"x": [x]}, lambda: {"x": (x**2).sum()})
    >>> game.losses()["x"].item()
    2.0
    """

    def __init__(
        self, players: Mapping[str, nn.Module | Iterable[Tensor]], losses: Closure
    ) -> None:
        self.players: Players = {}
        for name, owner in players.items():
            tensors = owner.parameters() if isinstance(owner, nn.Module) else owner
            self.players[name] = tuple(tensor for tensor in tensors if tensor.requires_grad)
        self.losses = losses
        check_players(self.players)


def check_players(players: Players) -> None:
    """Raise UsageError unless every player owns parameters and no two players share one."""
    if not players:
        raise UsageError("A game needs at least one player.")
    for name, parameters in players.items():
        if not parameters:
            raise UsageError(f'Player "{name}" has no parameters that require gradients.')
    check_owners(players)


def check_owners(players: Players) -> None:
    """Raise UsageError where two players share a parameter."""
    owners: dict[int, str] = {}
    for name, parameters in players.items():
        for index, parameter in enumerate(parameters):
            owner = owners.setdefault(id(parameter), name)
            if owner != name:
                raise UsageError(
                    f'Parameter {index} of player "{name}", shape {tuple(parameter.shape)}, also'
                    f' belongs to player "{owner}". Each parameter is moved by exactly one player;'
                    " give shared layers to one of them."
                )
