"""Write docs/evidence.md and its picture from the results of the study.

python scripts/write_evidence.py
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from statistics import median

import jinja2
import matplotlib.pyplot as plt
import numpy as np

from saddlepoint.compare.directory import read_comparison
from saddlepoint.compare.statistics import exchange_test, probability_better

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "studies" / "evidence" / "comparison.json"
FAMILIES = ("second-order", "subgradient", "first-order")
SHOWN = (
    "modes",
    "quality",
    "effective-modes",
    "classes",
    "recall[digit-cnn]",
    "gap[digit-cnn]",
    "copying[digit-cnn]",
    "frechet[digit-cnn]",
)


def number(value, digits=3):
    if value is None:
        return "none"
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.{digits}g}"


def table(head, rows):
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def methods(problem):
    """The methods that were run, the best median first."""
    return sorted((method for method in problem["methods"] if method["summary"]), key=lambda method: worth(problem, method))


def sign(problem):
    return 1 if problem["better"] == "smaller" else -1


def worth(problem, method):
    """The median as a number that is smaller for better methods, infinite where most runs have no end."""
    middle = method["summary"]["median"]
    return math.inf if middle is None else sign(problem) * middle


def losses(problem, method):
    """Each run's metric as such a number."""
    return [math.inf if run["metrics"] is None else sign(problem) * run["metrics"][problem["metric"]] for run in method["runs"]]


def best(problem, family):
    return next((method for method in methods(problem) if method["family"] == family), None)


def against(problem, family, rival="first-order"):
    """The best of a family and of another one, how often a run of the former is better, and the exact test's p."""
    mine, theirs = best(problem, family), best(problem, rival)
    if mine is None or theirs is None:
        return None
    a, b = losses(problem, mine), losses(problem, theirs)
    return mine, theirs, probability_better(a, b), exchange_test(a, b)


def with_interval(method):
    summary = method["summary"]
    lost = summary["diverged"] + summary["failed"]
    low, high = summary["interval"]
    return f"{number(summary['median'])} ({number(low)} … {number(high)})" + (f", {lost} lost" if lost else "")


def successes(method):
    success = method["summary"]["success"]
    return "–" if success is None else f"{round(success['rate'] * success['runs'])} of {success['runs']}"


def time_to_target(method):
    time = method["summary"]["time_to_target"]
    if time is None:
        return "–"
    middle = "never" if time["median"] is None else f"{time['median']:.2g} s"
    return f"{middle} ({time['reached']} of {time['reached'] + time['censored']})"


def best_of_families(study):
    """The table that the study was made for."""
    rows = []
    for problem in study["problems"]:
        winner = methods(problem)[0]
        cells = [
            "–"
            if (own := best(problem, family)) is None
            else ("**{}** {}" if own is winner else "{} {}").format(own["name"], with_interval(own))
            for family in FAMILIES
        ]
        rows.append([problem["name"], f"`{problem['metric'].removeprefix('ema/')}`", budget(problem), *cells])
    return table(("problem", "metric", "budget", *(f"best {family}" for family in FAMILIES)), rows)


def budget(problem):
    return ", ".join(f"{amount:g} {kind.replace('_', '-')}" for kind, amount in problem["budget"].items())


def duels(study, family):
    """Problem by problem: a family's best against the best first-order method."""
    rows = []
    for problem in study["problems"]:
        if found := against(problem, family):
            mine, theirs, share, p = found
            times = [time_to_target(method) for method in (mine, theirs)]
            rows.append([problem["name"], f"{mine['name']} against {theirs['name']}", f"{share:.0%}", f"{p:.2g}", *times])
    return table(("problem", "best against best", "a run is better in", "p", "time to target", "of the first-order method"), rows)


def verdict(study, family):
    """The problems on which a family's best is better, worse, or neither at p < 0.05, as a sentence."""
    found = {"better": [], "worse": [], "undecided": []}
    for problem in study["problems"]:
        if duel := against(problem, family):
            found["undecided" if duel[3] >= 0.05 else "better" if duel[2] > 0.5 else "worse"].append(problem["name"])
    parts = [f"{what} on {', '.join(names)}" for what, names in found.items() if names]
    return "; ".join(parts)


def costs(study):
    """Time and memory of a step as multiples of the baseline's: the median over the problems, and the range."""
    entries = {}
    for problem in study["problems"]:
        base = next(method["summary"] for method in problem["methods"] if method["name"] == problem["baseline"])
        for method in methods(problem):
            own = method["summary"]
            entry = entries.setdefault(method["name"], ([], [], [], method["family"]))
            entry[0].append(own["milliseconds_per_step"] / base["milliseconds_per_step"])
            entry[1].append(own["gradient_equivalents_per_step"])
            entry[2].append(own["peak_memory"] / base["peak_memory"])
    rows = [
        [name, family, f"{median(times):.1f} ({min(times):.1f} … {max(times):.1f})", f"{median(counts):.1f}", f"{median(memory):.1f}"]
        for name, (times, counts, memory, family) in sorted(entries.items(), key=lambda item: median(item[1][0]))
    ]
    return table(("method", "family", "time of a step", "gradient-equivalents a step", "peak memory"), rows)


def setbacks(problem, method):
    """The share of evaluations in the second half of the runs that are worse than the one before."""
    steps = []
    for run in method["runs"]:
        values = [sign(problem) * point["metrics"][problem["metric"]] for point in run["points"]]
        steps += [later > earlier for earlier, later in pairwise(values[len(values) // 2 :])]
    return sum(steps) / len(steps) if steps else None


def steadiness(study):
    rows = []
    for family in FAMILIES:
        own = [(problem, method) for problem in study["problems"] for method in methods(problem) if method["family"] == family]
        lost = sum(method["summary"]["diverged"] + method["summary"]["failed"] for _, method in own)
        runs = sum(len(method["runs"]) for _, method in own)
        trials = [trial for _, method in own if method["tuning"] for trial in method["tuning"]["trials"]]
        back = [share for problem, method in own if (share := setbacks(problem, method)) is not None]
        shares = f"{median(back):.0%} ({min(back):.0%} … {max(back):.0%})" if back else "–"
        rows.append([family, f"{lost} of {runs}", f"{sum(trial['value'] is None for trial in trials)} of {len(trials)}", shares])
    return table(("family", "reported runs without an end", "tuning trials without an end", "setbacks"), rows)


def modes_kept(study):
    """How many runs of each family's best method end at the target, and the modes that its runs cover."""
    rows = []
    for problem in study["problems"]:
        names = [name for name in problem["metrics"] if name.removeprefix("ema/") in ("modes", "effective-classes")]
        if not names:
            continue
        cells = []
        for method in (best(problem, family) for family in FAMILIES):
            if method is None:
                cells.append("–")
                continue
            success, ended = method["summary"]["success"], [run["metrics"][names[0]] for run in method["runs"] if run["metrics"]]
            reached = f", target in {round(success['rate'] * success['runs'])} of {success['runs']}" if success else ""
            cells.append(
                f"{method['name']}: {number(median(ended))} ({number(min(ended))} … {number(max(ended))}){reached}"
                if ended
                else "none ended"
            )
        rows.append([problem["name"], f"`{names[0].removeprefix('ema/')}`", *cells])
    return table(("problem", "counted", *FAMILIES), rows)


def family_table(problem):
    """Every method with its family: does it escape?"""
    rows = [
        [
            method["name"],
            method["family"],
            with_interval(method),
            successes(method),
            time_to_target(method),
        ]
        for method in methods(problem)
    ]
    return table(("method", "family", "median (95 %)", "escaped and learnt", "time to the target"), rows)


def overfitting(problem):
    """Gap and copying of every method beside its distance."""
    names = [problem["metric"], "ema/gap[digit-cnn]", "ema/copying[digit-cnn]"]
    rows = []
    for method in methods(problem):
        ended = [run["metrics"] for run in method["runs"] if run["metrics"]]
        rows.append([method["name"], *(number(median(metrics[name] for metrics in ended)) for name in names)])
    return table(("method", *(f"`{name.removeprefix('ema/')}`" for name in names)), rows)


def problem_table(problem):
    pairs = {pair["first"]: pair for pair in problem["pairs"]}
    prefix = "ema/" if problem["metric"].startswith("ema/") else ""
    shown = [prefix + name for name in SHOWN if prefix + name in problem["metrics"] and prefix + name != problem["metric"]]
    rows = []
    for method in methods(problem):
        pair, ended = pairs.get(method["name"]), [run["metrics"] for run in method["runs"] if run["metrics"]]
        tuned = (method["tuning"] or {"best": {}})["best"]
        rows.append(
            [
                method["name"],
                with_interval(method),
                successes(method),
                "–" if pair is None else f"{pair['better']:.0%} ({pair['p_adjusted']:.2g})",
                *(number(median(metrics[name] for metrics in ended)) if ended else "–" for name in shown),
                f"{method['summary']['milliseconds_per_step']:.2g}",
                ", ".join(f"{key.removeprefix('optimizer.').removeprefix('problem.')} {value}" for key, value in tuned.items()),
            ]
        )
    names = (f"`{name.removeprefix('ema/')}`" for name in shown)
    head = ("method", "median (95 %)", "success", f"better than {problem['baseline']} (p, corrected)", *names, "ms a step", "tuned to")
    return table(head, rows)


def our_rows(study):
    """Our plain GAN and our best method on both mixtures, as rows beside the published ones."""
    rows = []
    for title, pick in (
        ("ours, tuned Adam", lambda p: next(m for m in p["methods"] if m["name"] == "adam")),
        ("ours, best method", lambda p: methods(p)[0]),
    ):
        cells = []
        for name in ("mixture8 leaky-relu", "mixture25 leaky-relu"):
            problem = next((problem for problem in study["problems"] if problem["name"] == name), None)
            own = None if problem is None else [run["metrics"] for run in pick(problem)["runs"] if run["metrics"]]
            cells += ["–", "–"] if not own else [number(median(m["ema/modes"] for m in own)), number(median(m["ema/quality"] for m in own))]
        rows.append(f"| {title}, LeakyReLU | {' | '.join(cells)} |")
    return "\n".join(rows)


def finished():
    """The study's results, with those problems that are finished."""
    study = read_comparison(RESULTS)
    names = {plan["name"]: plan.get("methods") or list(study["study"]["methods"]) for plan in study["study"]["problems"]}
    seeds = study["study"]["seeds"]
    done = [p for p in study["problems"] if [len(method["runs"]) for method in p["methods"]] == [seeds] * len(names[p["name"]])]
    return {**study, "problems": done}


def page() -> str:
    """The page, from the results as they are now."""
    study = finished()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    helpers = [best_of_families, duels, verdict, costs, steadiness, modes_kept, family_table, overfitting, problem_table, budget]
    environment.globals |= {helper.__name__: helper for helper in helpers}
    done = {problem["name"]: problem for problem in study["problems"]}
    planned = study["study"]["problems"]
    few = [f"{plan['trials']} on {plan['name']}" for plan in planned if plan.get("trials") and plan["name"] in done]
    return environment.get_template("evidence.md.jinja").render(
        study=study,
        problems=done,
        missing=[plan["name"] for plan in planned if plan["name"] not in done],
        few=", ".join(few),
        runs=sum(len(method["runs"]) for problem in done.values() for method in problem["methods"]),
        ours=our_rows(study),
    )


COLOURS = {
    "soap": "#1b5fb4",
    "consensus+adam": "#d1651b",
    "adam": "#333333",
    "signum": "#b0457b",
    "normalized": "#9a6bd8",
    "acgd": "#0b8f6a",
}


def figure(path):
    """Draw the course of some methods on the ring of the mission's activation, and the samples of Adam and of the best."""
    problem = next(problem for problem in read_comparison(RESULTS)["problems"] if problem["name"] == "mixture8 leaky-relu")
    own = {method["name"]: method for method in methods(problem)}
    fig, axes = plt.subplots(1, 3, figsize=(11, 3.7), layout="constrained", width_ratios=(1.45, 1, 1))
    for name in (name for name in reversed(own) if name in COLOURS):  # the worst at the top of the legend, as in the chart
        seconds = np.mean([[point["seconds"] for point in run["points"]] for run in own[name]["runs"]], axis=0)
        values = np.array([[point["metrics"][problem["metric"]] for point in run["points"]] for run in own[name]["runs"]])
        axes[0].plot(seconds, np.median(values, axis=0), label=name, color=COLOURS[name], linewidth=2)
        axes[0].fill_between(seconds, values.min(axis=0), values.max(axis=0), color=COLOURS[name], alpha=0.1, linewidth=0)
    axes[0].set(xlabel="seconds of training, one core", ylim=(0, 1.02), xlim=(0.5, 10.2))
    axes[0].set_title("distance to the right shares of the modes", fontsize=10, loc="left")
    axes[0].spines[["top", "right"]].set_visible(False)
    axes[0].grid(alpha=0.25)
    axes[0].legend(frameon=False, loc="lower left", fontsize=9)
    for axis, name in zip(axes[1:], ("adam", "soap"), strict=True):
        axis.imshow(plt.imread(RESULTS.parent / own[name]["runs"][0]["points"][-1]["picture"]))
        axis.set_title(f"{name}, first seed, after {problem['budget']['seconds']:g} s", fontsize=10)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("#cccccc")
    fig.savefig(path, dpi=120)


def readme() -> str:
    """README with the table of today's results between its marks."""
    text = (ROOT / "README.md").read_text()
    before, _, rest = text.partition("<!-- evidence -->\n")
    return f"{before}<!-- evidence -->\n{best_of_families(finished())}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"


PAGES = {"evidence.md": page, "../README.md": readme}

if __name__ == "__main__":
    for name, text in PAGES.items():
        (ROOT / "docs" / name).write_text(text())
    figure(ROOT / "docs" / "images" / "evidence.png")
