"""What a rule remembers between steps."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from saddlepoint.vectors import Vector

Entry = dict[str, Any]
"""The memory of one parameter: name → a tensor, a list of tensors, or a number."""


class RuleState:
    """A rule's memory between steps: numbers, tensors by parameter, states of inner rules.

    Entries of a parameter are kept under the names of the player and the parameter, as
    ``torch.optim.Optimizer.state`` keeps them under the parameter. They therefore stay with their
    parameter when parameters are frozen, thawed or added, or players are listed in another order.
    The state is saved with the optimizer.

    Args:
        names: player → the names of the parameters that move in this step, in their order; the
            optimizer keeps it up to date. The parameters of a player that it lacks are named by
            their positions.

    >>> import torch
    >>> state, xi = RuleState(), Vector({"x": [torch.tensor([1.0, 2.0])]})
    >>> state.remember("past", xi)
    >>> state.recall("past", default=xi.zeros()).flatten().tolist()
    [1.0, 2.0]
    """

    def __init__(self, names: dict[str, tuple[str, ...]] | None = None) -> None:
        self.names = {} if names is None else names  # one object for a rule and all rules within it
        self.numbers: dict[str, float] = {}
        self.parameters: dict[str, dict[str, Entry]] = {}
        self.children: dict[str, RuleState] = {}

    def child(self, name: str) -> RuleState:
        """Return the state of the inner rule called ``name``, empty at first."""
        return self.children.setdefault(name, RuleState(self.names))

    def entries(self, vector: Vector) -> list[Entry]:
        """Return the entry of each parameter, to read and write, in the order of ``vector``."""
        found = []
        for player, tensors in vector.items():
            own = self.parameters.setdefault(player, {})
            names = self.names.get(player) or tuple(str(index) for index in range(len(tensors)))
            found += [own.setdefault(name, {}) for name, _ in zip(names, tensors, strict=True)]
        return found

    def knows(self, what: str, vector: Vector) -> bool:
        """Return whether any of the parameters has a memory called ``what``."""
        return any(what in entry for entry in self.entries(vector))

    def recall(self, what: str, default: Vector) -> Vector:
        """Return the vector remembered as ``what``, with the players and the order of ``default``.

        Parameters without it have the tensor of ``default``. The memory follows a network that was
        moved to another device or dtype.
        """
        tensors = []
        for entry, tensor in zip(self.entries(default), default.tensors, strict=True):
            if what in entry:
                entry[what] = tensor = entry[what].to(tensor)
            tensors.append(tensor)
        return default.rebuild(tensors)

    def remember(self, what: str, vector: Vector) -> None:
        """Keep a copy of ``vector`` as ``what``; the memory of other parameters stays."""
        for entry, tensor in zip(self.entries(vector), vector.tensors, strict=True):
            entry[what] = tensor.detach().clone()

    def remember_if_new(self, what: str, vector: Vector) -> None:
        """Keep a copy of ``vector`` as ``what`` for the parameters that have none yet."""
        for entry, tensor in zip(self.entries(vector), vector.tensors, strict=True):
            if what not in entry:
                entry[what] = tensor.detach().clone()

    def rename(self, player: str, names: Mapping[str, str]) -> None:
        """Rename a player's parameters: old name → new. The memory of the others is dropped."""
        own = self.parameters.get(player, {})
        self.parameters[player] = {
            names[name]: entry for name, entry in own.items() if name in names
        }
        for child in self.children.values():
            child.rename(player, names)

    def copy(self) -> RuleState:
        """Return a copy that shares the tensors, to restore where a step fails.

        Rules must replace the tensors of their state in a step, not write to them.
        """
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
    """Return new containers of the same tensors."""
    copies = {}
    for player, own in parameters.items():
        copies[player] = {name: dict(entry) for name, entry in own.items()}
    return copies
