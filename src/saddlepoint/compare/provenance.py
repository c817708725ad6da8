"""What decides an outcome beside its configuration: files of the user's, and the versions of everything that computes."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from saddlepoint.errors import UsageError
from saddlepoint.io.imports import current_directory_importable, is_installed
from saddlepoint.registry import build_problem
from saddlepoint.training.config import RunConfig, Tree
from saddlepoint.training.environment import code_digest, processor, versions

MadeWith = dict[str, str]
"""What an outcome was made with → its version: the library and its source, Python, PyTorch and others, the processor."""

UNKNOWN = "not recorded"


def inputs_of(config: RunConfig) -> Tree:
    """Return hashes of the user's files that a run reads: its data, and the source of an optimizer that belongs to no installed package.

    They are part of the key of an outcome, so that a run is made again when they change. A run that
    reads none has none.

    Raises:
        UsageError: a file cannot be read.
    """
    found = {}
    files = build_problem(config.problem.name, config.problem.options).data_files()
    if files:
        found["data"] = _digest_of(files)
    module = _module_of(config)
    if module and not is_installed(module.partition(".")[0]):
        found["source"] = _digest_of(sorted(_sources(module)))
    return found


def made_with(config: RunConfig) -> MadeWith:
    """Return what a run is made with here and now."""
    package = _module_of(config).partition(".")[0]
    own = {package: _package_version(package)} if package and is_installed(package) else {}
    return {**versions(), "source": code_digest(), "processor": processor(config.device), **own}


def recorded_in(environment: Mapping[str, object]) -> MadeWith:
    """Return what is known of outcomes that do not say themselves what they were made with, from the environment of their comparison."""
    known = {
        name: str(environment[name]) for name in versions() if environment.get(name) is not None
    }
    return {**dict.fromkeys([*versions(), "source", "processor"], UNKNOWN), **known}


def difference(then: MadeWith, now: MadeWith) -> str | None:
    """Return in what an outcome was made otherwise than one would be made now; None where it was not.

    >>> difference({"torch": "2.12.0", "numpy": "2.4.6"}, {"torch": "2.13.0", "numpy": "2.4.6"})
    'torch 2.12.0, now 2.13.0'
    """
    names = dict.fromkeys([*now, *then])
    parts = [
        f"{name} {then.get(name, UNKNOWN)}, now {now.get(name, 'none')}"
        for name in names
        if then.get(name) != now.get(name)
    ]
    return "; ".join(parts) or None


def shown(made: MadeWith) -> str:
    """Return what an outcome was made with as one line of a table.

    >>> shown({"saddlepoint": "0.1.0", "source": "1f2e", "torch": "2.13.0"})
    'saddlepoint 0.1.0, source 1f2e, torch 2.13.0'
    """
    return ", ".join(f"{name} {what}" for name, what in made.items())


def _module_of(config: RunConfig) -> str:
    """Return the module of an optimizer that is named by its import path; empty for one of the library's."""
    module, colon, _ = config.optimizer.name.partition(":")
    return module if colon else ""


@cache
def _package_version(package: str) -> str:
    """Return the version of an installed package with a hash of its files: one that is being worked on keeps its version."""
    try:
        name = version(packages_distributions()[package][0])
    except (PackageNotFoundError, KeyError):
        name = UNKNOWN
    return f"{name} ({_digest_of(sorted(_sources(package)))})"


def _sources(module: str) -> set[Path]:
    """Return the files of a module, those of its package, and those beside it that they import."""
    with current_directory_importable():
        spec = find_spec(module.partition(".")[0])
    if spec is None:
        return set()
    if spec.submodule_search_locations:
        return {
            path
            for folder in spec.submodule_search_locations
            for path in Path(folder).rglob("*.py")
        }
    if spec.origin is None or not spec.origin.endswith(".py"):
        return set()
    found: set[Path] = set()
    waiting = [Path(spec.origin)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported_beside(path)
    return found


def _imported_beside(path: Path) -> Iterator[Path]:
    """Yield the files in the same directory that a file imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError):  # importing it says why
        return
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            root = path.parent / name.partition(".")[0]
            if root.with_suffix(".py").is_file():
                yield root.with_suffix(".py")
            elif name and root.is_dir():
                yield from root.rglob("*.py")


def _digest_of(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        try:
            state = path.stat()
            digest.update(
                _file_digest(
                    path.resolve(), state.st_mtime_ns, state.st_size, state.st_ino
                ).encode()
            )
        except OSError as error:
            raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from error
    return digest.hexdigest()[:16]


@cache
def _file_digest(path: Path, *_state: int) -> str:
    """Return the hash of a file's content; of one that has not changed since, the one that is known."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
