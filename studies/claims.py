"""The tested claims with their verdicts, which are computed from the numbers."""

from __future__ import annotations

from statistics import median

from scipy.stats import fisher_exact

from saddlepoint.compare.statistics import mann_whitney_test
from studies.numbers import (
    FAMILIES,
    against,
    best,
    called,
    losses,
    methods,
    number,
    step_factors,
    successes,
    table,
    unsteady,
    worth,
)


def claims(study):
    """Every claim with its verdict and the numbers behind it; the verdicts follow from the numbers
    by rule."""
    rows = [
        [
            "second-order methods are faster: better at equal training time",
            held(study, "second-order"),
            verdict(study, "second-order"),
        ],
        [
            "subgradient methods are better at equal training time",
            held(study, "subgradient"),
            verdict(study, "subgradient"),
        ],
        [
            "second-order methods are more stable and preserve all modes",
            *kept(study, "second-order"),
        ],
        ["subgradient methods are more stable and preserve all modes", *kept(study, "subgradient")],
        *(
            [["subgradients solve vanishing gradients", *cured(saturated)]]
            if (saturated := called(study, "mixture8-saturated"))
            else []
        ),
        ["second-order methods cost more per step", *costlier(study)],
        ["subgradient methods oscillate more", *oscillating(study)],
        *(
            [["second-order methods overfit more", *overfitted(digits)]]
            if (digits := called(study, "digits"))
            else []
        ),
    ]
    return table(("claim", "verdict", "measured"), rows)


def word(p, better):
    return "undecided" if p >= 0.05 else "holds" if better else "fails"


def held(study, family):
    duels_of = [duel for problem in study["problems"] if (duel := against(problem, family))]
    better, worse = (
        sum(p < 0.05 and (share > 0.5) is which for _, _, share, p in duels_of)
        for which in (True, False)
    )
    if better and not worse:
        return f"holds on {better} of {len(duels_of)} problems, undecided on the rest"
    return f"holds on {better}, fails on {worse} of {len(duels_of)} problems"


def verdict(study, family):
    """The problems on which a family's best is better, worse, or neither at p < 0.05, as a
    sentence."""
    found = {"better": [], "worse": [], "undecided": []}
    for problem in study["problems"]:
        if duel := against(problem, family):
            found[
                "undecided" if duel[3] >= 0.05 else "better" if duel[2] > 0.5 else "worse"
            ].append(problem["name"])
    parts = [f"{what} on {', '.join(names)}" for what, names in found.items() if names]
    return "; ".join(parts)


def kept(study, family):
    (mine, total), (theirs, others) = at_target(study, family), at_target(study, "first-order")
    p = fisher_exact([[mine, total - mine], [theirs, others - theirs]]).pvalue
    said = (
        f"ends at the target in {mine} of {total} runs, the best first-order method in {theirs} of"
        f" {others} (Fisher's p {p:.2g})"
    )
    return word(p, mine / total > theirs / others), f"the best of the family {said}"


def cured(problem):
    mine, own = (
        best(problem, "subgradient"),
        {method["name"]: method for method in methods(problem)},
    )
    p = {
        name: mann_whitney_test(losses(problem, mine), losses(problem, own[name]))
        for name in ("sgd", "adam")
    }
    others = ", ".join(f"{name} in {successes(own[name])} (p {p[name]:.2g})" for name in p)
    verdicts = [
        f"{word(p[name], worth(problem, mine) < worth(problem, own[name]))} against {name}"
        for name in p
    ]
    return ", ".join(verdicts), f"{mine['name']} reaches the target in {successes(mine)}, {others}"


def costlier(study):
    slow = {
        method["name"]: factor
        for method, factor in step_factors(study)
        if method["family"] == "second-order"
    }
    return "holds", "time in steps of Adam: " + ", ".join(
        f"{name} {factor:.1f}" for name, factor in sorted(slow.items(), key=lambda item: item[1])
    )


def oscillating(study):
    back = {family: unsteady(study, family) for family in FAMILIES}
    shares = ", ".join(f"{family} {share:.0%}" for family, share in back.items())
    return (
        "holds" if back["subgradient"] > back["first-order"] else "not observed"
    ), f"late evaluations worse than the previous one: {shares}"


def overfitted(problem):
    gap = "ema/gap[digit-cnn]"
    mine, theirs = (
        [run["metrics"][gap] for run in best(problem, family)["runs"] if run["metrics"]]
        for family in ("second-order", "first-order")
    )
    p = mann_whitney_test([-value for value in mine], [-value for value in theirs])
    return (
        word(p, median(mine) > median(theirs)),
        (
            f"gap {number(median(mine))} against {number(median(theirs))} of the best first-order"
            f" method (p {p:.2g})"
        ),
    )


def at_target(study, family):
    """How many runs of the best methods of a family end at the target, and how many there are."""
    found = [
        method["summary"]["success"]
        for problem in study["problems"]
        if (method := best(problem, family))
    ]
    found = [success for success in found if success]
    return sum(round(success["rate"] * success["runs"]) for success in found), sum(
        success["runs"] for success in found
    )
