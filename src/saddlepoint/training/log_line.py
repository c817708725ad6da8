"""The schema of a line of a run's log; another program may have written the file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from saddlepoint.errors import UsageError


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("not a number")
    return value


Number = Annotated[float, BeforeValidator(_no_flag), Field(le=1e308, ge=-1e308)] | None
Numbers = dict[str, Number]
Step = Annotated[int, Field(strict=True, ge=0, le=10**15)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


def _of_both(numbers: Numbers) -> Numbers:
    if numbers.keys() != {"discriminator", "generator"}:
        raise ValueError("not a number of each player")
    return numbers


OfBoth = Annotated[Numbers, AfterValidator(_of_both)]


class _Gradients(_Part):
    model_config = ConfigDict(extra="forbid", frozen=True)

    norms: OfBoth
    layers: dict[str, Numbers] = {}
    zeros: OfBoth = {}
    signal_to_noise: Numbers = {}


class _Probe(_Part):
    gradients: _Gradients | None = None
    saturated: Numbers = {}


class _Trace(_Part):
    steps: list[Step]
    losses: dict[str, list[Number]]
    projections: dict[str, list[Number]]


class _Divergence(_Part):
    step: Step
    player: str
    place: str
    description: str
    share: Number
    largest: Number


class _RollBack(_Part):
    failed_step: Step
    lr_factor: Annotated[float, Field(ge=0, le=1)]
    divergence: _Divergence


class _Line(_Part):
    step: Step
    seconds: Number = None
    gradient_equivalents: Number = None
    losses: Numbers = {}
    terms: dict[str, Numbers] = {}
    gradient_norms: Numbers = {}
    direction_norms: Numbers = {}
    metrics: Numbers = {}
    probe: Annotated[_Probe | None, BeforeValidator(lambda probe: probe or None)] = None
    trace: _Trace | None = None
    divergence: _Divergence | None = None
    rollback: _RollBack | None = None


def validate_line(line: Any, where: str) -> dict[str, Any]:
    """Return the line unchanged if it matches the schema.

    Args:
        line: the line.
        where: file and number of the line, for the message.

    Raises:
        UsageError: the line has a value of another type than a run's log.
    """
    try:
        checked = _Line.model_validate(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part)[:40] for part in first["loc"]) or "the whole"
        raise UsageError(
            f"{where} is no line of a run's log: {key}: {first['msg']}. It is damaged, or another"
            " program wrote it."
        ) from error
    trace = checked.trace
    if trace is not None:
        for values in [*trace.losses.values(), *trace.projections.values()]:
            if len(values) != len(trace.steps):
                raise UsageError(
                    f"{where} is no line of a run's log: its trace has series of several lengths."
                    " It is damaged."
                )
    found: dict[str, Any] = line
    return found
