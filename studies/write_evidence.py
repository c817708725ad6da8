"""Write docs/evidence*.md, the table in README.md and their picture from the results of the study.

python -m studies.write_evidence
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jinja2

from saddlepoint.compare.directory import read_comparison
from studies.claims import claims, verdict
from studies.figure import draw
from studies.numbers import budget
from studies.tables import (
    best_of_families,
    costs,
    duels,
    family_table,
    modes_kept,
    our_rows,
    our_stacks,
    overfitting,
    problem_table,
    steadiness,
    union,
)

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "studies" / "evidence" / "comparison.json"


AS_TYPED = {"soap": "pytorch_optimizer:SOAP", "soap-512": "soap"}
"""Name in the study → name on the command line, where they differ."""


def as_typed(problem):
    """A problem's results with its methods under the names by which `saddlepoint compare --methods`
    knows them."""
    methods = [
        {**method, "name": AS_TYPED.get(method["name"], method["name"])}
        for method in problem["methods"]
    ]
    pairs = [
        {**pair, **{end: AS_TYPED.get(pair[end], pair[end]) for end in ("first", "second")}}
        for pair in problem["pairs"]
    ]
    return {**problem, "methods": methods, "pairs": pairs}


def finished():
    """The study's results, with those problems that are finished."""
    study = read_comparison(RESULTS)
    names = {
        plan["name"]: plan.get("methods") or list(study["study"]["methods"])
        for plan in study["study"]["problems"]
    }
    seeds = study["study"]["seeds"]
    done = [
        p
        for p in study["problems"]
        if [len(method["runs"]) for method in p["methods"]] == [seeds] * len(names[p["name"]])
    ]
    return {**study, "problems": [as_typed(problem) for problem in done]}


def page(name: str) -> str:
    """The page of that name, from the results as they are now."""
    study = finished()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    helpers = [
        best_of_families,
        claims,
        duels,
        verdict,
        costs,
        steadiness,
        modes_kept,
        family_table,
        overfitting,
        problem_table,
        union,
        budget,
    ]
    environment.globals |= {helper.__name__: helper for helper in helpers}
    done = {problem["name"]: problem for problem in study["problems"]}
    planned = study["study"]["problems"]
    few = [
        f"{plan['trials']} on {plan['name']}"
        for plan in planned
        if plan.get("trials") and plan["name"] in done
    ]
    return environment.get_template(f"{name}.jinja").render(
        study=study,
        problems=done,
        missing=missing(study),
        few=", ".join(few),
        runs=sum(len(method["runs"]) for problem in done.values() for method in problem["methods"]),
        ours=our_rows(study),
        stacked=our_stacks(done["stacked-digits"]) if "stacked-digits" in done else None,
    )


def missing(study):
    """The problems that are planned but not finished."""
    done = {problem["name"] for problem in study["problems"]}
    return [plan["name"] for plan in study["study"]["problems"] if plan["name"] not in done]


def readme() -> str:
    """README with the table of today's results between its marks."""
    text, study = (ROOT / "README.md").read_text(), finished()
    before, _, rest = text.partition("<!-- evidence -->\n")
    left = (
        f"\nPlanned and still to be run: {', '.join(missing(study))}.\n" if missing(study) else ""
    )
    return (
        f"{before}<!-- evidence -->\n{best_of_families(study)}\n{left}<!-- end"
        f" -->{rest.partition('<!-- end -->')[2]}"
    )


EVIDENCE = ("evidence.md", "evidence-problems.md", "evidence-method.md")
PAGES = {name: partial(page, name) for name in EVIDENCE} | {"../README.md": readme}

if __name__ == "__main__":
    for name, text in PAGES.items():
        (ROOT / "docs" / name).write_text(text())
    draw(finished(), RESULTS.parent, ROOT / "docs" / "images" / "evidence.png")
