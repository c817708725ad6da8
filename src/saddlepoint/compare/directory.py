"""The directory of a comparison: every run's outcome, its pictures, and the finished tables."""

from __future__ import annotations

import csv
import io
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saddlepoint.compare.again import is_interrupted
from saddlepoint.compare.differences import first_difference
from saddlepoint.compare.execution import Outcome
from saddlepoint.compare.jobs import Place
from saddlepoint.compare.kept import checked_comparison, checked_run
from saddlepoint.compare.provenance import MadeWith, recorded_in, shown
from saddlepoint.compare.reading import read_study
from saddlepoint.compare.study import Study, digest
from saddlepoint.errors import UsageError
from saddlepoint.io.atomic import json_line, write_atomic
from saddlepoint.io.limits import MAX_JSON_BYTES, dump_yaml, parse_json, read_bytes, refuse_symlinks
from saddlepoint.io.locks import FileLock, exclusive_lock
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
    "made_with",
)
_STUDY, _LOCK = "study.yaml", ".lock"
_EXECUTED = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What the text of a cell begins with that a spreadsheet may execute."""


class ComparisonDirectory:
    """``study.yaml``, ``runs/``, ``pictures/``, ``tuning.db``, ``results.csv`` and ``comparison.json``.

    A run's file has the key of what decides it; one with another key, such as of data that has
    changed since, is made again. What is in ``comparison.json`` is known too, so that this file
    alone is enough to go on from.

    Attributes:
        path: where it is.
        results, comparison: the finished files.
        searches: key → the trials of every search that ``comparison.json`` has.
        origin: environment and command of ``comparison.json``; empty where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = path / "results.csv"
        self.comparison = path / "comparison.json"
        self._kept: dict[str, Outcome] = {}
        self.searches: dict[str, Tree] = {}
        self.origin: Tree = {}
        if self.comparison.is_file():
            self._recall(read_comparison(self.comparison))

    @classmethod
    @contextmanager
    def opened(cls, path: Path, study: Study) -> Iterator[ComparisonDirectory]:
        """Make the directory, or go on in it, and hold it for a study, which is written into it.

        Any number of processes may hold it for the same study. Another study is refused, unless it
        only adds to the one that is there and nobody is at work on that.

        Raises:
            UsageError: it is a file, holds other files, another study or a symbolic link, or cannot
                be made.
        """
        _check_content(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / _LOCK)
        except OSError as error:
            raise _cannot_make(path, error) from error
        try:
            _claim(path, study, lock)
            yield cls(path)
        finally:
            lock.close()

    def _recall(self, found: Tree) -> None:
        """Note what a finished file has; outcomes that do not say what they were made with were made in its environment."""
        self.origin = {name: found[name] for name in ("environment", "command") if name in found}
        made = recorded_in(found.get("environment", {}))
        for problem in found["problems"]:
            for method in problem["methods"]:
                for run in method["runs"] + (method["robustness"] or {"runs": []})["runs"]:
                    self._kept[run["key"]] = _with_origin(run, made)
                if method["tuning"]:
                    trials = [_with_origin(trial, made) for trial in method["tuning"]["trials"]]
                    self.searches[method["tuning"]["key"]] = {**method["tuning"], "trials": trials}

    @property
    def storage_url(self) -> str:
        """Where tuning is kept unless another database is given."""
        return f"sqlite:///{self.path / 'tuning.db'}"

    def outcome(self, place: Place, key: str) -> Outcome | None:
        """Return the outcome of a run that was made with this key; None where there is none, half of one, or one that was interrupted."""
        try:
            found = parse_json(read_bytes(self._file(place), MAX_JSON_BYTES).decode())
        except (OSError, ValueError):
            found = {}
        if isinstance(found, dict) and found.get("key") == key:
            outcome = _with_origin(checked_run(found, str(self._file(place))), recorded_in({}))
        else:
            outcome = self._kept.get(key, {})
        return None if not outcome or is_interrupted(outcome) else outcome

    def write_outcome(self, place: Place, key: str, outcome: Outcome) -> None:
        """Write a run's outcome, and its pictures beside it."""
        pictures: list[bytes] = outcome["pictures"]
        folder = self.path / "pictures" / place.path
        for number, content in enumerate(pictures):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / f"{number + 1:02d}.png", content)
        names = [
            str(Path("pictures") / place.path / f"{number + 1:02d}.png")
            for number in range(len(pictures))
        ]
        named = [*names, *[None] * (len(outcome["points"]) - len(names))]
        points = [
            {**point, "picture": name} for point, name in zip(outcome["points"], named, strict=True)
        ]
        kept = {
            "key": key,
            **{name: value for name, value in outcome.items() if name != "pictures"},
            "points": points,
        }
        write_atomic(self._file(place), json_line(_rounded(kept)))

    @contextmanager
    def claimed(self, place: Place) -> Iterator[str | None]:
        """Hold a run, so that no other process makes it; yields None, or which process holds it. A killed process lets go."""
        file = self._file(place).with_suffix(".lock")
        file.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(file) as holder:
            yield holder

    def write_results(self, comparison: Tree) -> None:
        """Write ``comparison.json``, and ``results.csv`` with a line for every reported run."""
        # indented it would have a line for each of some hundred thousand numbers
        write_atomic(self.comparison, json_line(comparison))
        write_atomic(self.results, table_of(comparison).encode())

    def _file(self, place: Place) -> Path:
        return self.path / "runs" / place.path.with_name(place.path.name + ".json")


def default_directory(study: Study) -> Path:
    """Return where a study lies unless the user says otherwise: ``comparisons/NAME``, or ``comparisons/NAME-HASH`` where another one does.

    What only adds to a study goes on in its directory.
    """
    tree = study.to_dict()
    deciding = [
        {key: value for key, value in plan.items() if key != "target"} for plan in tree["problems"]
    ]
    named = Path("comparisons") / study.name
    own = named.with_name(
        f"{study.name}-{digest({**tree, 'baseline': None, 'problems': deciding})[:8]}"
    )
    if own.exists():
        return own
    try:
        there = _study_in(named)
    except UsageError:
        return own
    return own if there is not None and first_difference(there, study) else named


def _check_content(path: Path) -> None:
    """Refuse a directory that is none of a comparison, or has links in it."""
    if not path.is_dir():
        return
    own = (path / _STUDY).is_file() or all(
        entry.name == _LOCK or entry.match(f".{_STUDY}.*.tmp") for entry in path.iterdir()
    )
    if not own:
        raise UsageError(
            f"--out {path} holds other files already. Choose a directory of its own for the"
            " comparison."
        )
    refuse_symlinks(path)


def _claim(path: Path, study: Study, lock: FileLock) -> None:
    """Hold the directory together with all who work on the same study; write the study where there is none, or one that it adds to."""
    while True:
        lock.acquire_shared()
        there = _study_in(path)
        if there is not None and there.to_dict() == study.to_dict():
            lock.write_owner()
            return
        different = None if there is None else first_difference(there, study)
        if different is not None:
            raise UsageError(
                f"--out {path} holds another study: {different}. Choose another --out for this one;"
                " what is there is not touched."
            )
        holder = lock.read_owner()
        if lock.try_acquire_exclusive():
            if _study_in(path) == there:
                _write_study(path, study)
        elif there is not None:
            raise UsageError(
                f"--out {path}: another process is at work on the study there, and this one adds to"
                f" it (the last one to begin: {holder}). Give the command again when it has"
                " finished, or choose another --out."
            )
        # two that begin in the same moment do not meet for ever
        time.sleep(random.Random(os.getpid()).uniform(0.01, 0.1))


def _study_in(path: Path) -> Study | None:
    """Return the study of a directory; None where there is none."""
    if not (path / _STUDY).is_file():
        return None
    try:
        return read_study(path / _STUDY)
    except UsageError as error:
        raise UsageError(
            f"--out {path} holds a study that cannot be read: {error} Choose another --out."
        ) from error


def _write_study(path: Path, study: Study) -> None:
    try:
        write_atomic(path / _STUDY, dump_yaml(study.to_dict()).encode())
    except OSError as error:
        raise _cannot_make(path, error) from error


def _cannot_make(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"Cannot make the directory {path}: {error.strerror or error}. Choose another --out."
    )


def _with_origin(outcome: Tree, made: MadeWith) -> Tree:
    return outcome if outcome.get("made_with") else {**outcome, "made_with": made}


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
        found: Tree = parse_json(read_bytes(path, MAX_JSON_BYTES).decode())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"Cannot read {path}: {error}. Restore it, or delete it to make the comparison again."
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UsageError(f"{path} is not a comparison of format {FORMAT}. Choose another --out.")
    return checked_comparison(found, str(path))


def table_of(comparison: Tree) -> str:
    """Return the reported runs as CSV; metrics that a problem does not have are empty.

    A text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    rows: list[dict[str, Any]] = []
    for problem in comparison["problems"]:
        for method in problem["methods"]:
            for run in method["runs"]:
                own = {
                    "problem": problem["name"],
                    "method": method["name"],
                    "family": method["family"],
                }
                own |= {name: run[name] for name in _COLUMNS[3:]} | {
                    "made_with": shown(run["made_with"])
                }
                rows.append({**own, **(run["metrics"] or {})})
    metrics = dict.fromkeys(name for row in rows for name in row if name not in _COLUMNS)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [*_COLUMNS, *metrics]
    writer.writerow([_cell(name) for name in columns])
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_EXECUTED) else value
