"""The result of one step of a GameOptimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saddlepoint.curvature import Cost, Linearization, SolveInfo
from saddlepoint.vectors import Vector, norms_by_player


class StepResult:
    """Losses, norms, linear solves and cost of one step; ``GameOptimizer.step`` returns it.

    Losses and norms are copied from the device together, when the first of them is read.
    ``GameOptimizer(check_finite=True)`` reads them before it moves a parameter.

    Attributes:
        solves: name → SolveInfo of each linear solve of the step.
        cost: the Cost of the step.

    >>> from saddlepoint import GameOptimizer
    >>> x = torch.ones(2, requires_grad=True)
    >>> optimizer = GameOptimizer({"x": torch.optim.SGD([x], lr=0.1)})
    >>> result = optimizer.step(lambda: {"x": {"fit": 2 * x.sum(), "penalty": x.square().sum()}})
    >>> result.losses, result.terms
    ({'x': 6.0}, {'x': {'fit': 4.0, 'penalty': 2.0}})
    >>> round(result.gradient_norms["x"], 3), result.cost
    (5.657, Cost(gradients=1, products=0, losses=1))
    """

    def __init__(
        self,
        first: Linearization,
        direction: Vector,
        *,
        solves: Mapping[str, SolveInfo],
    ) -> None:
        self.solves = dict(solves)
        self.cost = Cost()  # the optimizer sets it
        self._term_names = first.term_names
        norms = direction.tensor_norms()
        self._direction_sizes = {player: len(own) for player, own in direction.items()}
        self._gradient_sizes: dict[str, int] = {}
        gradient_norms = norms[:0]
        if first.order > 0:
            self._gradient_sizes = {player: len(own) for player, own in first.gradient.items()}
            gradient_norms = norms if first.gradient is direction else first.take_gradient_norms()
        parts = [first.numbers.to(norms.device), norms.double(), gradient_norms.double()]
        self._numbers = torch.cat(parts)
        self._values: dict[str, dict[str, Any]] = {}

    def read(self, others: Sequence[Tensor] = ()) -> list[float]:
        """Copy losses, norms and ``others`` to the host at once; return those of ``others``."""
        device = self._numbers.device
        numbers = torch.cat([self._numbers, *(other.to(device) for other in others)]).tolist()
        remaining = iter(numbers)
        terms: dict[str, dict[str, float]] = {}
        for player, term in self._term_names:
            terms.setdefault(player, {})[term] = next(remaining)
        self._values = {
            "losses": {player: sum(own.values()) for player, own in terms.items()},
            "terms": {player: own for player, own in terms.items() if own.keys() != {""}},
            "direction_norms": norms_by_player(self._direction_sizes, remaining),
            "gradient_norms": norms_by_player(self._gradient_sizes, remaining),
        }
        return numbers[len(self._numbers) :]

    def _value(self, name: str) -> dict[str, Any]:
        if not self._values:
            self.read()
        return self._values[name]

    @property
    def losses(self) -> dict[str, float]:
        """Player → loss before the step."""
        return self._value("losses")

    @property
    def terms(self) -> dict[str, dict[str, float]]:
        """Player → named term → value, of the players whose losses have named terms."""
        return self._value("terms")

    @property
    def gradient_norms(self) -> dict[str, float]:
        """Player → ‖ξ_i‖; empty under rules that take no gradient."""
        return self._value("gradient_norms")

    @property
    def direction_norms(self) -> dict[str, float]:
        """Player → norm of the direction that its inner optimizer was given."""
        return self._value("direction_norms")

    def __repr__(self) -> str:
        return f"StepResult(losses={self.losses}, cost={self.cost})"
