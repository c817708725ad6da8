"""What a rule remembers between steps."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from saddlepoint.vectors import Vector

Entry = dict[str, Any]
"""What is remembered of one parameter: name → a tensor, a list of tensors, or a number."""


class RuleState:
    """What a rule remembers between steps: numbers by name, tensors by parameter, and the memory of rules within it.

    What belongs to a parameter is kept under the player's name and the parameter's, as
    ``torch.optim.Optimizer.state`` keeps it under the parameter: whoever freezes, thaws or adds
    parameters, or lists players in another order, finds it in the right place. It is saved with the
    optimizer.

    Args:
        names: player → the names of the parameters that move in this step, in their order; the
            optimizer keeps it up to date. A player that it lacks has its parameters named by their
            positions.
    """

    def __init__(self, names: dict[str, tuple[str, ...]] | None = None) -> None:
        self.names = {} if names is None else names  # one object for a rule and all rules within it
        self.numbers: dict[str, float] = {}
        self.parameters: dict[str, dict[str, Entry]] = {}
        self.children: dict[str, RuleState] = {}

    def child(self, name: str) -> RuleState:
        """Return the memory of the inner rule called ``name``, empty at first."""
        return self.children.setdefault(name, RuleState(self.names))

    def entries(self, vector: Vector) -> list[Entry]:
        """Return what is remembered of each parameter, one mapping for each tensor of ``vector`` in its order, to read and write."""
        found = []
        for player, tensors in vector.items():
            own = self.parameters.setdefault(player, {})
            names = self.names.get(player) or tuple(str(index) for index in range(len(tensors)))
            found += [own.setdefault(name, {}) for name, _ in zip(names, tensors, strict=True)]
        return found

    def knows(self, what: str, vector: Vector) -> bool:
        """Say whether ``what`` is remembered of any of the parameters."""
        return any(what in entry for entry in self.entries(vector))

    def recall(self, what: str, default: Vector) -> Vector:
        """Return what is remembered as ``what``, with the players and in the order of ``default``.

        Parameters of which nothing is remembered have the tensor of ``default``. What is
        remembered follows a network that was moved to another device or dtype.
        """
        tensors = []
        for entry, tensor in zip(self.entries(default), default.tensors, strict=True):
            if what in entry:
                entry[what] = tensor = entry[what].to(tensor)
            tensors.append(tensor)
        return default.rebuild(tensors)

    def remember(self, what: str, vector: Vector) -> None:
        """Keep a copy of ``vector`` as ``what``; other parameters' memory stays."""
        for entry, tensor in zip(self.entries(vector), vector.tensors, strict=True):
            entry[what] = tensor.detach().clone()

    def begin(self, what: str, vector: Vector) -> None:
        """Keep a copy of ``vector`` as ``what`` for the parameters of which none is remembered yet."""
        for entry, tensor in zip(self.entries(vector), vector.tensors, strict=True):
            if what not in entry:
                entry[what] = tensor.detach().clone()

    def rename(self, player: str, names: Mapping[str, str]) -> None:
        """Keep the memory of a player's parameters under other names: old → new. What ``names`` lacks is forgotten."""
        own = self.parameters.get(player, {})
        self.parameters[player] = {
            names[name]: entry for name, entry in own.items() if name in names
        }
        for child in self.children.values():
            child.rename(player, names)

    def copy(self) -> RuleState:
        """Return a memory of the same tensors, to go back to where a step fails; what is remembered is replaced, not written to."""
        other = RuleState(self.names)
        other.numbers, other.parameters = dict(self.numbers), _copied(self.parameters)
        other.children = {name: child.copy() for name, child in self.children.items()}
        return other

    def state_dict(self) -> dict[str, Any]:
        """Return the state in plain containers that load with ``weights_only=True``."""
        children = {name: child.state_dict() for name, child in self.children.items()}
        return {
            "parameters": _copied(self.parameters),
            "numbers": dict(self.numbers),
            "children": children,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state by one that ``state_dict`` returned; tensors are copied."""
        self.parameters = deepcopy(_copied(state["parameters"]))
        self.numbers = dict(state["numbers"])
        self.children = {}
        for name, child in state["children"].items():
            self.child(name).load_state_dict(child)


def _copied(parameters: Mapping[str, Mapping[str, Entry]]) -> dict[str, dict[str, Entry]]:
    """Return other containers of the same tensors."""
    return {
        player: {name: dict(entry) for name, entry in own.items()}
        for player, own in parameters.items()
    }
