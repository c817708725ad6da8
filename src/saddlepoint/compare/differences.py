"""Whether one study goes on with another, or is another one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from saddlepoint.compare.study import Study
from saddlepoint.training.config import Tree


def first_difference(there: Study, here: Study) -> str | None:
    """Return where a study changes what another one has; None where it goes on with it.

    It may add seeds, methods, problems and parts of a robustness map: then every run stays what it
    is. Baseline and targets, which decide how runs are reported and not how they are made, may
    change.

    Args:
        there: the study that a directory holds.
        here: the study that is to be made in it.
    """
    return next(_differences(there.to_dict(), here.to_dict()), None)


def _differences(there: Tree, here: Tree) -> Iterator[str]:
    yield from _changes("", there, here, but=("seeds", "baseline", "methods", "problems"))
    yield from _fewer("seeds", there["seeds"], here["seeds"])
    yield from _without("method", there["methods"], here["methods"])
    for name, method in there["methods"].items():
        yield from _changes(f'method "{name}": ', method, here["methods"][name])
    plans = {plan["name"]: plan for plan in here["problems"]}
    yield from _without("problem", [plan["name"] for plan in there["problems"]], plans)
    for plan in there["problems"]:
        yield from _plan_differences(
            plan, plans[plan["name"]], list(there["methods"]), list(here["methods"])
        )


def _plan_differences(
    old: Tree, new: Tree, old_methods: list[str], new_methods: list[str]
) -> Iterator[str]:
    where = f'problem "{old["name"]}": '
    yield from _changes(where, old, new, but=("methods", "target", "robustness"))
    yield from _without(
        f"{where}method", old.get("methods", old_methods), new.get("methods", new_methods)
    )
    if "robustness" in old:
        wanted = new.get("robustness", {"factors": [], "seeds": 0})
        yield from _without(
            f"{where}robustness factor", old["robustness"]["factors"], wanted["factors"]
        )
        yield from _fewer(f"{where}robustness seeds", old["robustness"]["seeds"], wanted["seeds"])


def _changes(
    where: str, old: Mapping[str, Any], new: Mapping[str, Any], but: Collection[str] = ()
) -> Iterator[str]:
    """Yield the values that are not the same, those of mappings within one by one."""
    for key in dict.fromkeys([*old, *new]):
        before, now = old.get(key), new.get(key)
        if key in but or before == now:
            continue
        if isinstance(before, Mapping) and isinstance(now, Mapping) and before.keys() == now.keys():
            yield from _changes(f"{where}{key}.", before, now)
        else:
            yield f"{where}{key} is {_said(before)} there and {_said(now)} here"


def _fewer(what: str, old: int, new: int) -> Iterator[str]:
    if new < old:
        yield f"{what}: {old} there and {new} here"


def _without(what: str, old: Collection[Any], new: Collection[Any]) -> Iterator[str]:
    for name in old:
        if name not in new:
            yield f'{what} "{name}" is there and not here'


def _said(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_said(inner)}" for key, inner in value.items()) or "empty"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
