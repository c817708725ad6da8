"""What decides a result beside its configuration: the user's files, and versions of all software.

Also which results have to be made again because of that.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from saddlepoint.errors import UsageError
from saddlepoint.io.imports import current_directory_importable, is_installed
from saddlepoint.registry import build_problem
from saddlepoint.training.config import RunConfig, Tree
from saddlepoint.training.environment import code_digest, processor, versions

MadeWith = dict[str, str]
"""Component → version: the library, its source, Python, PyTorch and others, the processor."""

UNKNOWN = "not recorded"

Rerun = Literal["killed", "failed", "outdated"]
"""Results to make again.

"killed": runs whose process ended without a result; "failed": those and all other failed runs;
"outdated": results made with other versions.
"""

RERUN_KINDS: tuple[Rerun, ...] = get_args(Rerun)

_PROCESS_ENDED = "The process of the run"
# SIGHUP, SIGINT, SIGTERM, which version 0.1.0 did not keep from the runs
_INTERRUPTED = re.compile(r"ended with exit code -(1|2|15)\b")


def is_interrupted(result: Tree) -> bool:
    """Return whether a run that is stored as failed was interrupted, so that it has no result."""
    return result["status"] == "failed" and _INTERRUPTED.search(result["error"] or "") is not None


def should_rerun(result: Tree, kinds: Collection[Rerun], now: MadeWith) -> bool:
    """Return whether a result, or a finished trial, is of one of the kinds.

    Args:
        result: with status, error and made_with.
        kinds: which kinds are made again.
        now: the versions that it would be made with now.
    """
    if result["status"] == "failed":
        killed = (result["error"] or "").startswith(_PROCESS_ENDED)
        if "failed" in kinds or ("killed" in kinds and killed):
            return True
    return "outdated" in kinds and version_difference(result["made_with"], now) is not None


def input_hashes(config: RunConfig) -> Tree:
    """Return hashes of the user's files that a run reads; empty for a run that reads none.

    These are data files, and the source of an optimizer that belongs to no installed package. They
    are part of the key of a result, so that a run is made again when they change.

    Raises:
        UsageError: a file cannot be read.
    """
    found = {}
    files = build_problem(config.problem.name, config.problem.options).data_files()
    if files:
        found["data"] = _hash_files(files)
    module, colon, _ = config.optimizer.name.partition(":")  # empty colon: a registered optimizer
    if colon and not is_installed(module.partition(".")[0]):
        found["source"] = _hash_files(_source_files(module))
    return found


def made_with(config: RunConfig) -> MadeWith:
    """Return what a run is made with here and now."""
    made = {**versions(), "source": code_digest(), "processor": processor(config.device)}
    module, colon, _ = config.optimizer.name.partition(":")
    package = module.partition(".")[0]
    if colon and is_installed(package):
        made[package] = _package_version(package)
    return made


def versions_in(environment: Mapping[str, object]) -> MadeWith:
    """Return the versions of results that do not record them, from their comparison's environment.

    What the environment does not have is "not recorded".
    """
    made = dict.fromkeys([*versions(), "source", "processor"], UNKNOWN)
    for name in versions():
        if environment.get(name) is not None:
            made[name] = str(environment[name])
    return made


def version_difference(then: MadeWith, now: MadeWith) -> str | None:
    """Return which versions differ; None if none does.

    >>> version_difference({"torch": "2.12.0", "numpy": "2.4"}, {"torch": "2.13.0", "numpy": "2.4"})
    'torch 2.12.0, now 2.13.0'
    """
    parts = [
        f"{name} {then.get(name, UNKNOWN)}, now {now.get(name, 'none')}"
        for name in dict.fromkeys([*now, *then])
        if then.get(name) != now.get(name)
    ]
    return "; ".join(parts) or None


def format_versions(made: MadeWith) -> str:
    """Return versions as one line of a table.

    >>> format_versions({"saddlepoint": "0.1.0", "source": "1f2e", "torch": "2.13.0"})
    'saddlepoint 0.1.0, source 1f2e, torch 2.13.0'
    """
    return ", ".join(f"{name} {what}" for name, what in made.items())


@cache
def _package_version(package: str) -> str:
    """Return an installed package's version with a hash of its files.

    The hash tells versions of an editable install apart.
    """
    try:
        name = version(packages_distributions()[package][0])
    except (PackageNotFoundError, KeyError):
        name = UNKNOWN
    return f"{name} ({_hash_files(_source_files(package))})"


def _source_files(module: str) -> list[Path]:
    """Return a package's files; for a single file, those beside it that it imports as well."""
    with current_directory_importable():
        spec = find_spec(module.partition(".")[0])
    if spec is None:
        return []
    found: set[Path] = set()
    for folder in spec.submodule_search_locations or ():
        found.update(Path(folder).rglob("*.py"))
    if spec.submodule_search_locations or spec.origin is None or not spec.origin.endswith(".py"):
        return sorted(found)

    queue = [Path(spec.origin)]
    while queue:
        path = queue.pop()
        if path in found:
            continue
        found.add(path)
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, ValueError, SyntaxError):  # importing it will report why
            continue
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                root = path.parent / name.partition(".")[0]
                if root.with_suffix(".py").is_file():
                    queue.append(root.with_suffix(".py"))
                elif name and root.is_dir():
                    queue += root.rglob("*.py")
    return sorted(found)


def _hash_files(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        try:
            stat = path.stat()
            content = _file_hash(path.resolve(), stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError as error:
            raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from error
        digest.update(content.encode())
    return digest.hexdigest()[:16]


@cache
def _file_hash(path: Path, *_state: int) -> str:
    """Return the hash of a file's content, cached while size, inode and time stay the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
