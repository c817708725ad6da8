"""What the page of a run shows, made ready for its template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saddlepoint.errors import quoted
from saddlepoint.report.charts import Table
from saddlepoint.report.environment import command_text, environment_table
from saddlepoint.report.formatting import (
    MISSING,
    duration,
    interval,
    number,
    share,
    whole,
    with_unit,
)
from saddlepoint.report.pictures import Frame, Picture, data_uri
from saddlepoint.report.run_charts import (
    WEIGHTS,
    metric_names,
    quality_charts,
    spectrum_charts,
    training_charts,
)
from saddlepoint.report.run_files import Card, Evaluation, Meaning, RunFiles, Summary

FIRST_CHARTS = 6
"""Charts of metrics that are seen at once; more lie behind a click."""

MOST_FRAMES = 48
"""Pictures of a run that are put into the page; of more they are spread evenly."""

_VERBS = {
    "finished": "Finished",
    "stopped early": "Stopped early",
    "interrupted": "Interrupted",
    "diverged": "Diverged",
}
_PREFIX_OF = {"raw": "", "ema": "ema/", "average": "average/"}


def run_page(run: RunFiles) -> dict[str, Any]:
    """Return what the template ``run.html.jinja`` needs."""
    quality, diagnosis = quality_charts(run), run.diagnosis
    spectrum = (
        []
        if diagnosis is None or diagnosis.spectrum is None
        else spectrum_charts(diagnosis.spectrum)
    )
    training = training_charts(run)
    return {
        "title": _title(run.config),
        "path": str(run.path),
        "argument": quoted(run.path),
        "outcome": outcome(run),
        "error": None if run.summary is None else run.summary.error,
        "ended": run.summary is not None,
        "metrics": _metrics(run),
        "frames": _frames(run),
        "pictures": len(run.pictures),
        "quality": quality[:FIRST_CHARTS],
        "more_quality": quality[FIRST_CHARTS:],
        "training": training,
        "spectrum": spectrum,
        "diagnosis": diagnosis,
        "findings": (
            diagnosis.findings
            if diagnosis is not None
            else run.summary.findings
            if run.summary is not None
            else []
        ),
        "cards": None if run.evaluation is None else _cards(run.evaluation),
        "evaluation": run.evaluation,
        "cost": None if run.summary is None else _cost(run.summary),
        "times": [] if run.summary is None else _times(run.summary),
        "environment": environment_table(run.environment),
        "commands": _commands(run),
        "config_text": run.config_text,
        "charts": [*quality, *training, *spectrum],
        "axis": "steps",
    }


def outcome(run: RunFiles) -> str:
    """Return in a sentence or two how the run ended, and what its first metrics are."""
    said = []
    for name in [name for name in metric_names(run) if name in run.metrics][:2]:
        averaged = (
            f" (moving average {number(run.metrics['ema/' + name])})"
            if "ema/" + name in run.metrics
            else ""
        )
        said.append(f"{name} {number(run.metrics[name])}{averaged}")
    measured = f" Last measured: {', '.join(said)}." if said else ""
    return (_so_far(run) if run.summary is None else _ended(run.summary)) + measured


def _ended(summary: Summary) -> str:
    speed = (
        f" ({with_unit(1000 * summary.seconds_per_step, 'ms')} a step)"
        if summary.seconds_per_step
        else ""
    )
    how = _VERBS.get(summary.status, summary.status)
    return (
        f"{how} after {whole(summary.steps)} steps and {duration(summary.seconds)} of"
        f" training{speed}."
    )


def _so_far(run: RunFiles) -> str:
    done = (
        f"{whole(run.lines[-1].step)} steps and {duration(run.lines[-1].seconds)}"
        if run.lines
        else "no step"
    )
    return (
        f"Not ended: {done} of training so far. The run is going on, or was stopped before it could"
        " write its summary."
    )


def _title(config: Mapping[str, Any]) -> str:
    names = [_name(config.get(part)) for part in ("problem", "rule", "optimizer")]
    return f"{names[0]}, {names[1]} + {names[2]}"


def _name(component: Any) -> str:
    return str(component.get("name", MISSING)) if isinstance(component, Mapping) else str(component)


def _metrics(run: RunFiles) -> Table | None:
    if not run.metrics:
        return None
    shown = [
        prefix
        for prefix in WEIGHTS
        if any(prefix + name in run.metrics for name in metric_names(run))
    ]
    rows = []
    for name in metric_names(run):
        meaning = run.meanings.get(name, Meaning())
        about = [meaning.better or MISSING, meaning.meaning] if run.meanings else []
        rows.append([name, *(number(run.metrics.get(prefix + name)) for prefix in shown), *about])
    header = [
        "metric",
        *(WEIGHTS[prefix] for prefix in shown),
        *(["better", "what it is"] if run.meanings else []),
    ]
    return Table(caption="Metrics at the latest evaluation", header=header, rows=rows)


def _frames(run: RunFiles) -> list[Frame]:
    seconds = {line.step: line.seconds for line in run.lines}
    frames, found = [], run.pictures
    kept = (
        range(len(found))
        if len(found) <= MOST_FRAMES
        else np.linspace(0, len(found) - 1, MOST_FRAMES).round().astype(int)
    )
    for step, file in (found[index] for index in kept):
        at = f"step {whole(step)}" + (
            f", {duration(seconds[step])}" if seconds.get(step) is not None else ""
        )
        frames.append(
            Frame(
                label=at,
                pictures=[Picture(name="", source=data_uri(file), description=f"Samples at {at}")],
            )
        )
    return frames


def _cards(evaluation: Evaluation) -> Table:
    """Return a row for each metric, a column of values with intervals for each kind of weights, and the conditions."""
    shown = list(dict.fromkeys(card.weights for card in evaluation.cards))
    of: dict[str, dict[str, Card]] = {}
    for card in evaluation.cards:
        of.setdefault(card.metric, {})[card.weights] = card
    rows = [
        [
            name,
            *(
                interval(own[who].value, own[who].interval) if who in own else MISSING
                for who in shown
            ),
            _conditions(next(iter(own.values()))),
        ]
        for name, own in of.items()
    ]
    titles = [WEIGHTS.get(_PREFIX_OF.get(who, who), who) for who in shown]
    return Table(caption="Metric cards", header=["metric", *titles, "measured on"], rows=rows)


def _conditions(card: Card) -> str:
    against = f"against {whole(card.real)} real, {card.split}" if card.real else card.split
    said = [f"{whole(card.generated)} samples, seed {card.seed}", against]
    said += [f"features of {card.extractor}"] if card.extractor != "none" else []
    said += [f"resized: {card.resize}"] if card.resize != "none" else []
    said += (
        [f"{share(card.level)} from {card.replicates} replicates"]
        if card.interval is not None
        else ["no interval"]
    )
    return "; ".join(said)


def _cost(summary: Summary) -> Table:
    speed = 1 / summary.seconds_per_step if summary.seconds_per_step else None
    counts = {
        "gradients": "gradients",
        "products": "rows of Jacobian products",
        "losses": "evaluations of the losses",
    }
    rows = [["steps a second", number(speed)], ["training time", duration(summary.seconds)]]
    rows += [
        [title, whole(summary.cost[name])] for name, title in counts.items() if name in summary.cost
    ]
    rows += [
        ["unconverged solves", whole(summary.unconverged_solves)],
        ["roll-backs", whole(summary.rollbacks)],
    ]
    return Table(
        caption="Cost; passes are counted over one player's loss",
        header=["what", "amount"],
        rows=rows,
    )


def _times(summary: Summary) -> list[tuple[str, float, str]]:
    """Return (what, share of all the time, said) since the last start; empty where it was not recorded."""
    here, observing = summary.seconds_here, summary.observing_seconds
    if here is None or observing is None or not here + observing > 0:
        return []
    metrics, probes = summary.evaluating_seconds or 0.0, summary.probing_seconds or 0.0
    parts = {
        "training": here,
        "metrics": metrics,
        "probes": probes,
        "pictures and checkpoints": max(0.0, observing - metrics - probes),
    }
    whole_time = sum(parts.values())
    return [
        (what, spent / whole_time, f"{duration(spent)}, {share(spent / whole_time)}")
        for what, spent in parts.items()
    ]


def _commands(run: RunFiles) -> list[tuple[str, str]]:
    given = run.environment.get("command")
    again = f"saddlepoint train --config {quoted(run.path / 'config.yaml')}"
    said = [("The complete configuration again", again)]
    return [("As it was started", command_text(given)), *said] if given else said
