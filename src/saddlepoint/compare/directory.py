"""The directory of a comparison: its study, locks, results of runs, pictures and final tables."""

from __future__ import annotations

import csv
import io
import os
import random
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from saddlepoint.compare.execution import RunResult
from saddlepoint.compare.provenance import format_versions, is_interrupted, versions_in
from saddlepoint.compare.runs import RunId
from saddlepoint.compare.schemas import ComparisonSchema, RunSchema, validate_as
from saddlepoint.compare.study import Study, digest, read_study
from saddlepoint.errors import UsageError
from saddlepoint.io.atomic import json_line, write_atomic
from saddlepoint.io.limits import MAX_JSON_BYTES, dump_yaml, parse_json, read_bytes, refuse_symlinks
from saddlepoint.io.locks import FileLock, exclusive_lock
from saddlepoint.training.config import Tree

FORMAT = 1
_RUN_COLUMNS = (
    "seed",
    "status",
    "steps",
    "seconds",
    "gradient_equivalents",
    "peak_memory",
    "unconverged_solves",
)
_COLUMNS = ("problem", "method", "family", *_RUN_COLUMNS, "made_with")
_STUDY, _LOCK = "study.yaml", ".lock"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of cells that a spreadsheet may execute."""


class ComparisonDirectory:
    """The directory of one study and its results.

    It has ``study.yaml``, ``runs/``, ``pictures/``, ``tuning.db``, ``results.csv`` and
    ``comparison.json``.

    The file of a run has the key of everything that decides it; one with another key, such as after
    a change of the data, is made again. Results in ``comparison.json`` are used too, so this file
    alone is enough to resume.

    Attributes:
        path: of the directory.
        results, comparison: paths of the final files.
        searches: key → search, of all searches in ``comparison.json``.
        origin: environment and command of ``comparison.json``; empty where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = path / "results.csv"
        self.comparison = path / "comparison.json"
        self.searches: dict[str, Tree] = {}
        self.origin: Tree = {}
        self._saved: dict[str, RunResult] = {}
        if not self.comparison.is_file():
            return

        found = read_comparison(self.comparison)
        self.origin = {name: found[name] for name in ("environment", "command") if name in found}
        # results that do not record versions were made in the file's environment
        made = versions_in(found.get("environment", {}))
        for problem in found["problems"]:
            for method in problem["methods"]:
                robustness = method["robustness"] or {"runs": []}
                for run in method["runs"] + robustness["runs"]:
                    run["made_with"] = run.get("made_with") or made
                    self._saved[run["key"]] = run
                if method["tuning"]:
                    for trial in method["tuning"]["trials"]:
                        trial["made_with"] = trial.get("made_with") or made
                    self.searches[method["tuning"]["key"]] = method["tuning"]

    @classmethod
    @contextmanager
    def open(cls, path: Path, study: Study) -> Iterator[ComparisonDirectory]:
        """Create the directory, or resume the one that exists, and hold it for a study.

        The study is written into it. Any number of processes may hold it for the same study.
        Another study is refused, unless it only adds to the existing one and no process works on
        that.

        Raises:
            UsageError: the path is a file, holds other files, another study or a symbolic link, or
                cannot be created.
        """
        if path.is_dir():
            ours = (path / _STUDY).is_file() or all(
                entry.name == _LOCK or entry.match(f".{_STUDY}.*.tmp") for entry in path.iterdir()
            )
            if not ours:
                raise UsageError(
                    f"--out {path} holds other files already. Choose a directory of its own for the"
                    " comparison."
                )
            refuse_symlinks(path)
        with ExitStack() as stack:
            try:
                path.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(closing(FileLock(path / _LOCK)))
                _acquire(path, study, lock)
            except OSError as error:
                raise UsageError(
                    f"Cannot create the directory {path}: {error.strerror or error}. Choose another"
                    " --out."
                ) from error
            yield cls(path)

    @property
    def storage_url(self) -> str:
        """The database of trials, unless another one is given."""
        return f"sqlite:///{self.path / 'tuning.db'}"

    def read_result(self, run_id: RunId, key: str) -> RunResult | None:
        """Return the result of a run that was made with this key.

        None where there is none, where its file is incomplete, or where the run was interrupted.
        """
        file = self.path / run_id.file
        try:
            found = parse_json(read_bytes(file, MAX_JSON_BYTES).decode())
        except (OSError, ValueError):
            found = {}
        if isinstance(found, dict) and found.get("key") == key:
            result = validate_as(RunSchema, found, str(file))
            result["made_with"] = result.get("made_with") or versions_in({})
        else:
            result = self._saved.get(key, {})
        return None if not result or is_interrupted(result) else result

    def write_result(self, run_id: RunId, key: str, result: RunResult) -> None:
        """Write the result of a run and its pictures."""
        folder = run_id.pictures
        points = [{**point, "picture": None} for point in result["points"]]
        for number, content in enumerate(result["pictures"]):
            name = folder / f"{number + 1:02d}.png"
            (self.path / folder).mkdir(parents=True, exist_ok=True)
            write_atomic(self.path / name, content)
            points[number]["picture"] = str(name)
        saved = {name: value for name, value in result.items() if name != "pictures"}
        saved = {"key": key, **saved, "points": points}
        write_atomic(self.path / run_id.file, json_line(_rounded(saved)))

    @contextmanager
    def lock(self, run_id: RunId) -> Iterator[str | None]:
        """Lock a run, so that no other process makes it; yield None, or which process holds it.

        The lock of a process that is killed is released.
        """
        file = (self.path / run_id.file).with_suffix(".lock")
        file.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(file) as holder:
            yield holder

    def write_comparison(self, comparison: Tree) -> None:
        """Write ``comparison.json``, and ``results.csv`` with a line for every reported run."""
        # indented, it would have a line for each of some hundred thousand numbers
        write_atomic(self.comparison, json_line(comparison))
        write_atomic(self.results, format_csv(comparison).encode())


def default_directory(study: Study) -> Path:
    """Return the directory of a study without ``--out``.

    ``comparisons/NAME``, or ``comparisons/NAME-HASH`` where another study has that. A study that
    only adds to the existing one resumes in its directory.
    """
    tree = study.to_dict()
    tree["baseline"] = None
    for plan in tree["problems"]:
        plan.pop("target", None)
    named = Path("comparisons") / study.name
    own = named.with_name(f"{study.name}-{digest(tree)[:8]}")
    if own.exists():
        return own
    try:
        existing = _study_in(named)
    except UsageError:
        return own
    return own if existing is not None and first_difference(existing, study) else named


def _acquire(path: Path, study: Study, lock: FileLock) -> None:
    """Share the directory's lock with all processes that work on the same study.

    Writes the study where there is none, or one that it adds to.
    """
    while True:
        lock.acquire_shared()
        existing = _study_in(path)
        if existing is not None and existing.to_dict() == study.to_dict():
            lock.write_owner()
            return
        difference = None if existing is None else first_difference(existing, study)
        if difference is not None:
            raise UsageError(
                f"--out {path} holds another study: {difference}. Choose another --out for this"
                " one; the existing one is not changed."
            )
        holder = lock.read_owner()
        if lock.try_acquire_exclusive():
            if _study_in(path) == existing:
                write_atomic(path / _STUDY, dump_yaml(study.to_dict()).encode())
        elif existing is not None:
            raise UsageError(
                f"--out {path}: another process works on the study there, and this one adds to it"
                f" (the last process that started: {holder}). Run the command again when it has"
                " finished, or choose another --out."
            )
        # random, so that two processes that start at the same time do not collide for ever
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


def _rounded(value: Any) -> Any:
    """Return plain containers with numbers of six digits, which keeps files of results small."""
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
    return validate_as(ComparisonSchema, found, str(path))


def format_csv(comparison: Tree) -> str:
    """Return the reported runs as CSV; metrics that a problem does not have are empty.

    Text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    rows: list[dict[str, Any]] = []
    for problem in comparison["problems"]:
        for method in problem["methods"]:
            names = {"problem": problem["name"], "method": method["name"]}
            names["family"] = method["family"]
            for run in method["runs"]:
                spent = {name: run[name] for name in _RUN_COLUMNS}
                versions = {"made_with": format_versions(run["made_with"])}
                rows.append({**names, **spent, **versions, **(run["metrics"] or {})})
    columns = dict.fromkeys(_COLUMNS)
    for row in rows:
        columns |= dict.fromkeys(row)

    table: list[list[Any]] = [list(columns)]
    table += [[row.get(name) for name in columns] for row in rows]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for cells in table:
        escaped = []
        for cell in cells:
            formula = isinstance(cell, str) and cell.startswith(_FORMULA_STARTS)
            escaped.append(f"'{cell}" if formula else cell)
        writer.writerow(escaped)
    return text.getvalue()


# whether a study may continue another one


def first_difference(old: Study, new: Study) -> str | None:
    """Return the first change that invalidates runs of the old study; None if there is none.

    The new study may add seeds, methods, problems and parts of a robustness map, and may change
    the baseline and the targets, which decide how runs are reported and not how they are made.

    Args:
        old: the study of a directory ("there" in the result).
        new: the study to run in that directory ("here").
    """
    before, after = old.to_dict(), new.to_dict()
    found = _changes("", before, after, ignored=("seeds", "baseline", "methods", "problems"))
    if new.seeds < old.seeds:
        found.append(f"seeds: {old.seeds} there and {new.seeds} here")
    for name in before["methods"]:
        if name in after["methods"]:
            mine, other = before["methods"][name], after["methods"][name]
            found += _changes(f'method "{name}": ', mine, other)
        else:
            found.append(f'method "{name}" is there and not here')

    plans = {plan["name"]: plan for plan in after["problems"]}
    for plan in before["problems"]:
        where = f'problem "{plan["name"]}"'
        other = plans.get(plan["name"])
        if other is None:
            found.append(f"{where} is there and not here")
            continue
        found += _changes(f"{where}: ", plan, other, ignored=("methods", "target", "robustness"))
        kept = other.get("methods", after["methods"])
        for name in plan.get("methods", before["methods"]):
            if name not in kept:
                found.append(f'{where}: method "{name}" is there and not here')
        if "robustness" in plan:
            old_map = plan["robustness"]
            new_map = other.get("robustness", {"factors": [], "seeds": 0})
            for factor in old_map["factors"]:
                if factor not in new_map["factors"]:
                    found.append(f'{where}: robustness factor "{factor}" is there and not here')
            if new_map["seeds"] < old_map["seeds"]:
                seeds = f"{old_map['seeds']} there and {new_map['seeds']} here"
                found.append(f"{where}: robustness seeds: {seeds}")
    return found[0] if found else None


def _changes(
    where: str, old: Mapping[str, Any], new: Mapping[str, Any], ignored: Collection[str] = ()
) -> list[str]:
    """Return the values that differ, those of mappings with the same keys one by one."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        before: Any = old.get(key)
        after: Any = new.get(key)
        if key in ignored or before == after:
            continue
        both = isinstance(before, dict) and isinstance(after, dict)
        if both and before.keys() == after.keys():
            found += _changes(f"{where}{key}.", before, after)
        else:
            found.append(f"{where}{key} is {_shown(before)} there and {_shown(after)} here")
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_shown(inner)}" for key, inner in value.items()) or "empty"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
