"""Findings of the doctor, ranked by severity, and the wording that their messages share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

Level = Literal["error", "warning", "note"]

BOTH = "both"
"""The player of a finding about the game as a whole."""

_ORDER: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """A property of a pair of networks that matters before training.

    Attributes:
        level: "error" where training or a rule would fail or be silently wrong, "warning" where
            care is needed, "note" for information.
        check: short name of the check.
        player: "generator", "discriminator" or "both".
        layer: dotted name and class, such as "layers.1 (Linear)".
        message: what was found with its number, why it matters, and what to do.
        numbers: the measured values behind the finding.
    """

    level: Level
    check: str
    player: str
    layer: str
    message: str
    numbers: dict[str, float] = field(default_factory=dict)


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return errors first, then warnings, then notes; each level keeps the given order.

    >>> unranked = [Finding(level, "x", "both", "", "") for level in ("note", "error", "warning")]
    >>> [finding.level for finding in ranked(unranked)]
    ['error', 'warning', 'note']
    """
    return tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.level)))


def module_at(network: nn.Module, name: str) -> nn.Module:
    """Return the layer with a dotted name; scripted networks have no ``get_submodule``.

    >>> module_at(nn.Sequential(nn.Tanh()), "0")
    Tanh()
    """
    layers: dict[str, nn.Module] = dict(network.named_modules(remove_duplicate=False))
    return layers[name]


def layer_name(network: nn.Module, name: str) -> str:
    """Return the dotted name and class of a layer.

    >>> layer_name(nn.Sequential(nn.Tanh()), "0"), layer_name(nn.Tanh(), "")
    ('0 (Tanh)', 'whole network (Tanh)')
    """
    return f"{name or 'whole network'} ({type(module_at(network, name)).__name__})"


def in_message(layer: str) -> str:
    """Return a layer name as it is written inside a message.

    >>> in_message("0 (Linear)"), in_message("whole network (Linear)")
    ('layer 0 (Linear)', 'the whole network (Linear)')
    """
    return f"the {layer}" if layer.startswith("whole network") else f"layer {layer}"


def shortened(names: Iterable[str], most: int = 3) -> str:
    """Return the first few names and the number of those left out.

    >>> shortened("abcde")
    'a, b, c and 2 more'
    """
    everything = list(names)
    rest = len(everything) - most
    return ", ".join(everything[:most]) + (f" and {rest} more" if rest > 0 else "")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or of the PyTorch error that caused it.

    >>> first_line(RuntimeError("no\\nway"))
    'no.'
    """
    cause = error.__cause__ if isinstance(error.__cause__, RuntimeError) else error
    text = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    return text if text.endswith((".", "!", "?")) else f"{text}."
