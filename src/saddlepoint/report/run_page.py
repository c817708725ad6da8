"""The content of the page of a run, for its template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saddlepoint.errors import quoted
from saddlepoint.report.charts import Chart
from saddlepoint.report.formatting import (
    MISSING,
    Table,
    command_text,
    duration,
    environment_table,
    integer,
    interval,
    number,
    percent,
    with_unit,
)
from saddlepoint.report.pictures import run_frames
from saddlepoint.report.run_charts import (
    WEIGHTS,
    metric_charts,
    metric_names,
    spectrum_charts,
    training_charts,
)
from saddlepoint.report.schemas import Evaluation, Finding, Meaning, MetricResult, RunFiles, Summary

VISIBLE_CHARTS = 6
"""Number of charts of metrics that are shown at once; the others can be unfolded."""


def run_page(run: RunFiles) -> dict[str, Any]:
    """Return the variables of the template ``run.html.jinja``."""
    metrics, training = metric_charts(run), training_charts(run)
    summary, diagnosis = run.summary, run.diagnosis
    findings: tuple[Finding, ...] = ()
    spectrum: list[Chart] = []
    if summary is not None:
        findings = summary.findings
    if diagnosis is not None:
        findings = diagnosis.findings
        if diagnosis.spectrum is not None:
            spectrum = spectrum_charts(diagnosis.spectrum)

    names = []
    for part in ("problem", "rule", "optimizer"):
        component = run.config.get(part)
        if isinstance(component, Mapping):
            component = component.get("name", MISSING)
        names.append(str(component))

    config = quoted(run.path / "config.yaml")
    commands = [("The complete configuration", f"saddlepoint train --config {config}")]
    if run.environment.get("command"):
        commands.insert(0, ("Original command", command_text(run.environment["command"])))

    return {
        "title": f"{names[0]}, {names[1]} + {names[2]}",
        "path": str(run.path),
        "argument": quoted(run.path),
        "outcome": outcome(run),
        "error": None if summary is None else summary.error,
        "ended": summary is not None,
        "metrics": _metrics_table(run),
        "frames": run_frames(run),
        "pictures": len(run.sample_files),
        "quality": metrics[:VISIBLE_CHARTS],
        "more_quality": metrics[VISIBLE_CHARTS:],
        "training": training,
        "spectrum": spectrum,
        "diagnosis": diagnosis,
        "findings": findings,
        "results": None if run.evaluation is None else _results_table(run.evaluation),
        "evaluation": run.evaluation,
        "cost": None if summary is None else _cost_table(summary),
        "times": [] if summary is None else _times(summary),
        "environment": environment_table(run.environment),
        "commands": commands,
        "config_text": run.config_text,
        "charts": [*metrics, *training, *spectrum],
        "axis": "steps",
    }


def outcome(run: RunFiles) -> str:
    """Return how the run ended, and its first two metrics, as text."""
    summary = run.summary
    if summary is not None:
        status = summary.status[:1].upper() + summary.status[1:]
        amount = f"{integer(summary.steps)} steps and {duration(summary.seconds)}"
        text = f"{status} after {amount} of training"
        if summary.seconds_per_step:
            text += f" ({with_unit(1000 * summary.seconds_per_step, 'ms')} a step)"
        text += "."
    else:
        done = "no step"
        if run.lines:
            done = f"{integer(run.lines[-1].step)} steps and {duration(run.lines[-1].seconds)}"
        text = (
            f"Not finished: {done} of training so far. The run is still in progress, or was killed"
            " before it wrote its summary."
        )
    measured = []
    for name in [name for name in metric_names(run) if name in run.metrics][:2]:
        averaged = ""
        if "ema/" + name in run.metrics:
            averaged = f" (moving average {number(run.metrics['ema/' + name])})"
        measured.append(f"{name} {number(run.metrics[name])}{averaged}")
    return f"{text} Latest metrics: {', '.join(measured)}." if measured else text


def _metrics_table(run: RunFiles) -> Table | None:
    if not run.metrics:
        return None
    names = metric_names(run)
    prefixes = []
    for prefix in WEIGHTS:
        keys = [prefix + name for name in names]
        if not run.metrics.keys().isdisjoint(keys):
            prefixes.append(prefix)
    header = ["metric", *(WEIGHTS[prefix] for prefix in prefixes)]
    if run.meanings:
        header += ["better", "meaning"]
    rows = []
    for name in names:
        row = [name, *(number(run.metrics.get(prefix + name)) for prefix in prefixes)]
        if run.meanings:
            meaning = run.meanings.get(name, Meaning())
            row += [meaning.better or MISSING, meaning.meaning]
        rows.append(row)
    return Table(caption="Metrics at the latest evaluation", header=header, rows=rows)


def _results_table(evaluation: Evaluation) -> Table:
    """Return a row for each metric: a value for each kind of weights, and the conditions."""
    weights = list(dict.fromkeys(result.weights for result in evaluation.results))
    by_metric: dict[str, dict[str, MetricResult]] = {}
    for result in evaluation.results:
        by_metric.setdefault(result.metric, {})[result.weights] = result

    rows = []
    for name, results in by_metric.items():
        row = [name]
        for kind in weights:
            found = results.get(kind)
            row.append(MISSING if found is None else interval(found.value, found.interval))
        first = next(iter(results.values()))
        reference = f"against {integer(first.real)} real, " if first.real else ""
        conditions = [
            f"{integer(first.generated)} samples, seed {first.seed}",
            reference + first.split,
        ]
        if first.extractor != "none":
            conditions.append(f"features of {first.extractor}")
        if first.resize != "none":
            conditions.append(f"resized: {first.resize}")
        if first.interval is None:
            conditions.append("no interval")
        else:
            conditions.append(f"{percent(first.level)} from {first.replicates} replicates")
        rows.append([*row, "; ".join(conditions)])

    prefixes = {"raw": "", "ema": "ema/", "average": "average/"}
    titles = [WEIGHTS.get(prefixes.get(kind, kind), kind) for kind in weights]
    return Table(
        caption="Metrics with intervals", header=["metric", *titles, "measured on"], rows=rows
    )


def _cost_table(summary: Summary) -> Table:
    speed = 1 / summary.seconds_per_step if summary.seconds_per_step else None
    rows = [["steps per second", number(speed)], ["training time", duration(summary.seconds)]]
    counts = {
        "gradients": "gradients",
        "products": "rows of Jacobian products",
        "losses": "evaluations of the losses",
    }
    for name, title in counts.items():
        if name in summary.cost:
            rows.append([title, integer(summary.cost[name])])
    rows.append(["unconverged solves", integer(summary.unconverged_solves)])
    rows.append(["roll-backs", integer(summary.rollbacks)])
    return Table(
        caption="Cost, in passes over one player's loss",
        header=["quantity", "amount"],
        rows=rows,
    )


def _times(summary: Summary) -> list[tuple[str, float, str]]:
    """Return (part, share of the time, text) since the last start; empty if not recorded."""
    training, observing = summary.seconds_here, summary.observing_seconds
    if training is None or observing is None or not training + observing > 0:
        return []
    metrics, probes = summary.evaluating_seconds or 0.0, summary.probing_seconds or 0.0
    parts = {
        "training": training,
        "metrics": metrics,
        "probes": probes,
        "pictures and checkpoints": max(0.0, observing - metrics - probes),
    }
    total = sum(parts.values())
    return [
        (part, spent / total, f"{duration(spent)}, {percent(spent / total)}")
        for part, spent in parts.items()
    ]
