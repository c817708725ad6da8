"""The public interface, written down: what changes here changes for every user, and belongs into
the changelog.

After an intended change: python -m tests.test_public_api
"""

import inspect
from pathlib import Path

import torch

import saddlepoint

SNAPSHOT = Path(__file__).with_name("public_api.txt")


def described() -> str:
    """Return one line for each public name, and below each class one for each of its public
    methods."""
    lines = []
    for name in sorted(saddlepoint.__all__):
        thing = getattr(saddlepoint, name)
        lines.append(name + signature_of(thing))
        if inspect.isclass(thing):
            own = sorted(
                member
                for member in vars(thing)
                if not member.startswith("_") and not wrapped_by_torch(thing, member)
            )
            lines += [f"    {member}{signature_of(getattr(thing, member))}" for member in own]
    return "\n".join(lines) + "\n"


def wrapped_by_torch(kind: type, member: str) -> bool:
    """Say whether torch puts the member into the class when the first optimizer of it is made."""
    return issubclass(kind, torch.optim.Optimizer) and member == "step"


def signature_of(thing: object) -> str:
    if not callable(thing):
        return ""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except ValueError:  # exceptions have none
        return ""
    return (
        "("
        + ", ".join(
            str(parameter.replace(annotation=inspect.Parameter.empty)) for parameter in parameters
        )
        + ")"
    )


def test_the_public_interface_is_what_was_written_down():
    assert described() == SNAPSHOT.read_text(), (
        "run python -m tests.test_public_api if this was intended, and say so in CHANGELOG.md"
    )


if __name__ == "__main__":
    SNAPSHOT.write_text(described())
