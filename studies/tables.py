"""The tables of the evidence page."""

from __future__ import annotations

from statistics import median

from studies.numbers import (
    FAMILIES,
    against,
    best,
    budget,
    methods,
    number,
    setbacks,
    successes,
    table,
    time_to_target,
    with_interval,
)

SHOWN = (
    "modes",
    "quality",
    "effective_modes",
    "class_coverage",
    "recall[digit-cnn]",
    "gap[digit-cnn]",
    "copying[digit-cnn]",
    "frechet[digit-cnn]",
)


def best_of_families(study):
    """The main table of the study."""
    rows = []
    for problem in study["problems"]:
        winner = methods(problem)[0]
        cells = [
            (
                "–"
                if (own := best(problem, family)) is None
                else ("**{}** {}" if own is winner else "{} {}").format(
                    own["name"], with_interval(own)
                )
            )
            for family in FAMILIES
        ]
        rows.append(
            [
                problem["name"],
                f"`{problem['metric'].removeprefix('ema/')}`",
                budget(problem),
                *cells,
            ]
        )
    return table(("problem", "metric", "budget", *(f"best {family}" for family in FAMILIES)), rows)


def duels(study, family):
    """Problem by problem: a family's best against the best first-order method."""
    rows = []
    for problem in study["problems"]:
        if found := against(problem, family):
            mine, theirs, share, p = found
            times = [time_to_target(method) for method in (mine, theirs)]
            rows.append(
                [
                    problem["name"],
                    f"{mine['name']} against {theirs['name']}",
                    f"{share:.0%}",
                    f"{p:.2g}",
                    *times,
                ]
            )
    return table(
        (
            "problem",
            "methods",
            "P(better run)",
            "p",
            "time to target",
            "time of the first-order method",
        ),
        rows,
    )


def costs(study):
    """Time and memory of a step as multiples of the baseline's: the median over the problems, and
    the range."""
    entries = {}
    for problem in study["problems"]:
        base = next(
            method["summary"]
            for method in problem["methods"]
            if method["name"] == problem["baseline"]
        )
        for method in methods(problem):
            own = method["summary"]
            entry = entries.setdefault(method["name"], ([], [], [], method["family"]))
            entry[0].append(own["milliseconds_per_step"] / base["milliseconds_per_step"])
            entry[1].append(own["gradient_equivalents_per_step"])
            entry[2].append(own["peak_memory"] / base["peak_memory"])
    rows = [
        [
            name,
            family,
            f"{median(times):.1f} ({min(times):.1f} … {max(times):.1f})",
            f"{median(counts):.1f}",
            f"{median(memory):.1f}",
        ]
        for name, (times, counts, memory, family) in sorted(
            entries.items(), key=lambda item: median(item[1][0])
        )
    ]
    return table(
        ("method", "family", "time per step", "gradient-equivalents per step", "peak memory"), rows
    )


def union(study):
    """Results and steps of ``kronecker-cgd`` and of the methods that it combines."""
    rows = []
    for problem in study["problems"]:
        own = {method["name"]: method for method in methods(problem)}
        if "kronecker-cgd" not in own:
            continue
        for name in (
            name
            for name in ("adam", "pytorch_optimizer:SOAP", "soap", "acgd", "kronecker-cgd")
            if name in own
        ):
            steps = median(run["steps"] for run in own[name]["runs"])
            each = f"{own[name]['summary']['milliseconds_per_step']:.2g}"
            rows.append(
                [
                    problem["name"],
                    name,
                    with_interval(own[name]),
                    successes(own[name]),
                    f"{steps:g}",
                    each,
                ]
            )
    return table(("problem", "method", "median (95 %)", "success", "steps", "ms per step"), rows)


def steadiness(study):
    rows = []
    for family in FAMILIES:
        own = [
            (problem, method)
            for problem in study["problems"]
            for method in methods(problem)
            if method["family"] == family
        ]
        lost = sum(method["summary"]["diverged"] + method["summary"]["failed"] for _, method in own)
        runs = sum(len(method["runs"]) for _, method in own)
        trials = [
            trial for _, method in own if method["tuning"] for trial in method["tuning"]["trials"]
        ]
        back = [
            share for problem, method in own if (share := setbacks(problem, method)) is not None
        ]
        shares = f"{median(back):.0%} ({min(back):.0%} … {max(back):.0%})" if back else "–"
        rows.append(
            [
                family,
                f"{lost} of {runs}",
                f"{sum(trial['value'] is None for trial in trials)} of {len(trials)}",
                shares,
            ]
        )
    return table(("family", "failed reported runs", "failed tuning trials", "setbacks"), rows)


def modes_kept(study):
    """How many runs of each family's best method end at the target, and the modes that its runs
    cover."""
    rows = []
    for problem in study["problems"]:
        names = [
            name
            for name in problem["metrics"]
            if name.removeprefix("ema/") in ("modes", "effective_classes")
        ]
        if not names:
            continue
        cells = []
        for method in (best(problem, family) for family in FAMILIES):
            if method is None:
                cells.append("–")
                continue
            success, ended = (
                method["summary"]["success"],
                [run["metrics"][names[0]] for run in method["runs"] if run["metrics"]],
            )
            reached = (
                f", target in {round(success['rate'] * success['runs'])} of {success['runs']}"
                if success
                else ""
            )
            cells.append(
                f"{method['name']}: {number(median(ended))} ({number(min(ended))} …"
                f" {number(max(ended))}){reached}"
                if ended
                else "no finished run"
            )
        rows.append([problem["name"], f"`{names[0].removeprefix('ema/')}`", *cells])
    return table(("problem", "metric", *FAMILIES), rows)


def family_table(problem):
    """Every method with its family, and whether it reaches the target."""
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
    return table(("method", "family", "median (95 %)", "target reached", "time to target"), rows)


def overfitting(problem):
    """Gap and copying of every method beside its distance."""
    names = [problem["metric"], "ema/gap[digit-cnn]", "ema/copying[digit-cnn]"]
    rows = []
    for method in methods(problem):
        ended = [run["metrics"] for run in method["runs"] if run["metrics"]]
        rows.append(
            [
                method["name"],
                *(number(median(metrics[name] for metrics in ended)) for name in names),
            ]
        )
    return table(("method", *(f"`{name.removeprefix('ema/')}`" for name in names)), rows)


def problem_table(problem):
    pairs = {pair["first"]: pair for pair in problem["pairs"]}
    prefix = "ema/" if problem["metric"].startswith("ema/") else ""
    shown = [
        prefix + name
        for name in SHOWN
        if prefix + name in problem["metrics"] and prefix + name != problem["metric"]
    ]
    rows = []
    for method in methods(problem):
        pair, ended = (
            pairs.get(method["name"]),
            [run["metrics"] for run in method["runs"] if run["metrics"]],
        )
        tuned = (method["tuning"] or {"best": {}})["best"]
        rows.append(
            [
                method["name"],
                with_interval(method),
                successes(method),
                "–" if pair is None else f"{pair['better']:.0%} ({pair['p_adjusted']:.2g})",
                *(
                    number(median(metrics[name] for metrics in ended)) if ended else "–"
                    for name in shown
                ),
                f"{method['summary']['milliseconds_per_step']:.2g}",
                ", ".join(
                    f"{key.removeprefix('optimizer.').removeprefix('problem.')} {value}"
                    for key, value in tuned.items()
                ),
            ]
        )
    names = (f"`{name.removeprefix('ema/')}`" for name in shown)
    head = (
        "method",
        "median (95 %)",
        "success",
        f"better than {problem['baseline']} (p, corrected)",
        *names,
        "ms per step",
        "tuned to",
    )
    return table(head, rows)


OURS = (
    (
        "this study, tuned Adam",
        lambda problem: next(method for method in problem["methods"] if method["name"] == "adam"),
    ),
    ("this study, best method", lambda problem: methods(problem)[0]),
)


def our_stacks(problem):
    """The same on stacked digits: modes and reverse KL."""
    rows = []
    for title, pick in OURS:
        method = pick(problem)
        ended = [run["metrics"] for run in method["runs"] if run["metrics"]]
        cells = (number(median(m[name] for m in ended)) for name in ("ema/modes", "ema/reverse_kl"))
        rows.append(f"| {title} ({method['name']}) | {' | '.join(cells)} |")
    return "\n".join(rows)


def our_rows(study):
    """Plain GAN and best method on both mixtures, as rows for the table of published numbers."""
    rows = []
    for title, pick in OURS:
        cells = []
        for name in ("mixture8 leaky_relu", "mixture25 leaky_relu"):
            problem = next(
                (problem for problem in study["problems"] if problem["name"] == name), None
            )
            own = (
                None
                if problem is None
                else [run["metrics"] for run in pick(problem)["runs"] if run["metrics"]]
            )
            cells += (
                ["–", "–"]
                if not own
                else [
                    number(median(m["ema/modes"] for m in own)),
                    number(median(m["ema/quality"] for m in own)),
                ]
            )
        rows.append(f"| {title}, LeakyReLU | {' | '.join(cells)} |")
    return "\n".join(rows)
