"""The directory of a comparison: every run's outcome, its pictures, and the finished tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saddlepoint.compare.execution import Outcome
from saddlepoint.compare.jobs import Place
from saddlepoint.compare.kept import checked_comparison, checked_run
from saddlepoint.compare.study import Study
from saddlepoint.errors import UsageError
from saddlepoint.files import json_line, locked, write_atomic
from saddlepoint.reading import JSON_BYTES, dump_yaml, parse_json, read_bytes, refuse_links
from saddlepoint.training.config import Tree

FORMAT = 1
_COLUMNS = (
    "problem",
    "method",
    "family",
    "seed",
    "status",
    "steps",
    "seconds",
    "gradient_equivalents",
    "peak_memory",
    "unconverged_solves",
)


class ComparisonDirectory:
    """``study.yaml``, ``runs/``, ``pictures/``, ``tuning.db``, ``results.csv`` and ``comparison.json``.

    A run's file has the key of everything that decides it; one with another key is of an earlier study and is made again. What is in
    ``comparison.json`` is known too, so that this file alone is enough to go on from.

    Attributes:
        path: where it is.
        results, comparison: the finished files.
        searches: key → the trials of every search that ``comparison.json`` has.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = path / "results.csv"
        self.comparison = path / "comparison.json"
        self._kept: dict[str, Outcome] = {}
        self.searches: dict[str, Tree] = {}
        for problem in read_comparison(self.comparison)["problems"] if self.comparison.is_file() else ():
            for method in problem["methods"]:
                self._kept |= {run["key"]: run for run in method["runs"] + (method["robustness"] or {"runs": []})["runs"]}
                if method["tuning"]:
                    self.searches[method["tuning"]["key"]] = method["tuning"]

    @classmethod
    def create(cls, path: Path, study: Study) -> ComparisonDirectory:
        """Make the directory, or go on in it; the study is written into it.

        Raises:
            UsageError: it is a file, holds something else or a symbolic link, or cannot be made.
        """
        if path.is_dir() and any(path.iterdir()) and not (path / "study.yaml").is_file():
            raise UsageError(f"--out {path} holds other files already. Choose a directory of its own for the comparison.")
        if path.is_dir():
            refuse_links(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_atomic(path / "study.yaml", dump_yaml(study.to_dict()).encode())
        except OSError as error:
            raise UsageError(f"Cannot make the directory {path}: {error.strerror or error}. Choose another --out.") from error
        return cls(path)

    @property
    def storage_url(self) -> str:
        """Where tuning is kept unless another database is given."""
        return f"sqlite:///{self.path / 'tuning.db'}"

    def outcome(self, place: Place, key: str) -> Outcome | None:
        """Return the outcome of a run that was made with this key; None where there is none, or half of one."""
        try:
            found = parse_json(read_bytes(self._file(place), JSON_BYTES).decode())
        except (OSError, ValueError):
            found = {}
        if isinstance(found, dict) and found.get("key") == key:
            return checked_run(found, str(self._file(place)))
        return self._kept.get(key)

    def write_outcome(self, place: Place, key: str, outcome: Outcome) -> None:
        """Write a run's outcome, and its pictures beside it."""
        pictures: list[bytes] = outcome["pictures"]
        folder = self.path / "pictures" / place.path
        for number, content in enumerate(pictures):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / f"{number + 1:02d}.png", content)
        names = [str(Path("pictures") / place.path / f"{number + 1:02d}.png") for number in range(len(pictures))]
        named = [*names, *[None] * (len(outcome["points"]) - len(names))]
        points = [{**point, "picture": name} for point, name in zip(outcome["points"], named, strict=True)]
        kept = {"key": key, **{name: value for name, value in outcome.items() if name != "pictures"}, "points": points}
        write_atomic(self._file(place), json_line(_rounded(kept)))

    @contextmanager
    def claimed(self, place: Place) -> Iterator[bool]:
        """Hold a run, so that no other process makes it; yields False where another holds it. A killed process lets go."""
        file = self._file(place).with_suffix(".lock")
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(file) as holder:
            yield holder is None

    def write_results(self, comparison: Tree) -> None:
        """Write ``comparison.json``, and ``results.csv`` with a line for every reported run."""
        write_atomic(self.comparison, json_line(comparison))  # indented it would have a line for each of some hundred thousand numbers
        write_atomic(self.results, table_of(comparison).encode())

    def _file(self, place: Place) -> Path:
        return self.path / "runs" / place.path.with_name(place.path.name + ".json")


def _rounded(value: Any) -> Any:
    """Return plain containers with numbers of six digits: of outcomes no more is of interest, and a study has a great many."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def read_comparison(path: Path) -> Tree:
    """Return what a ``comparison.json`` holds.

    Raises:
        UsageError: it is missing, damaged, or of another format.
    """
    try:
        found: Tree = parse_json(read_bytes(path, JSON_BYTES).decode())
    except (OSError, ValueError) as error:
        raise UsageError(f"Cannot read {path}: {error}. Restore it, or delete it to make the comparison again.") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UsageError(f"{path} is not a comparison of format {FORMAT}. Choose another --out.")
    return checked_comparison(found, str(path))


def table_of(comparison: Tree) -> str:
    """Return the reported runs as CSV; metrics that a problem does not have are empty."""
    rows: list[dict[str, Any]] = []
    for problem in comparison["problems"]:
        for method in problem["methods"]:
            for run in method["runs"]:
                own = {"problem": problem["name"], "method": method["name"], "family": method["family"]}
                rows.append({**own, **{name: run[name] for name in _COLUMNS[3:]}, **(run["metrics"] or {})})
    metrics = dict.fromkeys(name for row in rows for name in row if name not in _COLUMNS)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_COLUMNS, *metrics], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
