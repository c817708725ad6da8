"""What a rule remembers between steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saddlepoint.vectors import Vector


class RuleState:
    """What a rule remembers between steps: vectors and numbers by name, and the memory of rules within it. Saved with the optimizer."""

    def __init__(self) -> None:
        self.vectors: dict[str, Vector] = {}
        self.numbers: dict[str, float] = {}
        self.children: dict[str, RuleState] = {}

    def child(self, name: str) -> RuleState:
        """Return the memory of the inner rule called ``name``, empty at first."""
        return self.children.setdefault(name, RuleState())

    def state_dict(self) -> dict[str, Any]:
        """Return the state in plain containers that load with ``weights_only=True``."""
        vectors = {name: {player: list(tensors) for player, tensors in v.items()} for name, v in self.vectors.items()}
        children = {name: child.state_dict() for name, child in self.children.items()}
        return {"vectors": vectors, "numbers": dict(self.numbers), "children": children}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state by one that ``state_dict`` returned; tensors are copied."""
        self.vectors = {name: Vector(parts).clone() for name, parts in state["vectors"].items()}
        self.numbers = dict(state["numbers"])
        self.children = {}
        for name, child in state["children"].items():
            self.child(name).load_state_dict(child)
