"""What a rule is, what it sees during one step, and what it remembers between steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch

from saddlepoint.curvature import SOLVERS, Cost, Evaluation, Solve
from saddlepoint.curvature.replay import Replay
from saddlepoint.game import Closure, Players
from saddlepoint.vectors import Vector


class RuleState:
    """What a rule remembers between steps: vectors and numbers by name, saved with the optimizer."""

    def __init__(self) -> None:
        self.vectors: dict[str, Vector] = {}
        self.numbers: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state in plain containers that load with ``weights_only=True``."""
        vectors = {name: {player: list(tensors) for player, tensors in v.items()} for name, v in self.vectors.items()}
        return {"vectors": vectors, "numbers": dict(self.numbers)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state by one that ``state_dict`` returned; tensors are copied."""
        self.vectors = {name: Vector(parts).clone() for name, parts in state["vectors"].items()}
        self.numbers = dict(state["numbers"])


class Step:
    """One step as its rule sees it: what is known here, and what it may do.

    Attributes:
        point: the evaluation at the current parameters, of the rule's order.
        learning_rates: player → the inner optimizer's learning rate for each parameter; for rules whose units are steps.
        state: what the rule keeps between steps.
        solves: the reports of the solves of this step, by name.
    """

    def __init__(
        self,
        players: Players,
        closure: Closure,
        *,
        order: int,
        learning_rates: Mapping[str, Sequence[float]],
        state: RuleState,
        replay: Replay,
        cost: Cost,
    ) -> None:
        self.learning_rates = learning_rates
        self.state = state
        self.solves: dict[str, Solve] = {}
        self._players, self._closure, self._replay = players, closure, replay
        self.point = Evaluation(players, closure, order=order, cost=cost)

    def evaluate(self, order: int, *, finite: bool = True) -> Evaluation:
        """Evaluate the closure once more, with the randomness of the first evaluation and without moving buffers.

        ``finite=False`` lets a trial point have losses that are NaN or infinite.
        """
        with self._replay.again():
            return Evaluation(self._players, self._closure, order=order, cost=self.point.cost, finite=finite)

    @contextmanager
    def displaced(self, d: Vector) -> Iterator[None]:
        """Hold the parameters at θ − d. Products of ``point`` are not possible afterwards: PyTorch sees them as changed."""
        tensors = [parameter for player in d for parameter in self._players[player]]
        saved = [tensor.detach().clone() for tensor in tensors]
        with torch.no_grad():
            torch._foreach_sub_(tensors, d.tensors)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(tensors, saved)

    def solve(
        self,
        name: str,
        method: str,
        product: Callable[[Vector], Vector],
        b: Vector,
        *,
        x0: Vector | None = None,
        shift: float = 0.0,
        tolerance: float,
        budget: int,
    ) -> tuple[Vector, Vector]:
        """Solve (A + shift·I) x = b with the solver called ``method``; return x and A x, and leave the report in ``solves``."""
        solution = SOLVERS[method](
            lambda v: product(b.unflatten(v)).flatten(),
            b.flatten(),
            x0=None if x0 is None else x0.flatten(),
            shift=shift,
            tolerance=tolerance,
            budget=budget,
        )
        self.solves[name] = solution.report
        return b.unflatten(solution.x), b.unflatten(solution.image)


class Rule(ABC):
    """Turns what is known at the current point into each player's update direction; the optimizer moves against it.

    A rule is an immutable description (a frozen dataclass): everything it remembers lives in ``step.state``, so one rule can
    serve several optimizers.

    Three facts describe it:
        order: 0 uses losses only, 1 gradients, 2 Jacobian products.
        joint: whether it needs the losses of all players at once.
        units: "gradient" when the direction is to be scaled by any inner optimizer; "step" when it is a step already, up to
            the learning rate, so that the inner optimizers must be plain SGD.
    """

    order: ClassVar[Literal[0, 1, 2]]
    units: ClassVar[Literal["gradient", "step"]] = "gradient"

    @property
    def joint(self) -> bool:
        """Whether the rule needs the losses of all players in every step."""
        return False

    @abstractmethod
    def direction(self, step: Step) -> Vector:
        """Return the direction of every mover, shaped like its parameters; θ moves towards θ − lr · direction."""
