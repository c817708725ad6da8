"""Whose code a name may bring in: importing a module runs it, and a configuration or a study may be a stranger's."""

from __future__ import annotations

import os
import re
import sys
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from types import ModuleType

from saddlepoint.errors import UsageError
from saddlepoint.importing import importable_here

TRUSTED = "SADDLEPOINT_TRUST"
"""The environment variable with the modules, separated by commas, that files may name too; processes that are started inherit it."""

_PATH = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]")


def trust_named(*texts: str | None) -> None:
    """Let the modules that the user names on the command line be imported, here and in processes that are started from here.

    Args:
        texts: what was given, such as ``extragradient+my_optimizers:Mine, adam`` or
            ``optimizer.name=my_optimizers:Mine``.
    """
    if named := {module for text in texts if text is not None for module in _PATH.findall(text)}:
        os.environ[TRUSTED] = ",".join(sorted(_trusted() | named))


def check_trusted(path: str) -> None:
    """Refuse the import path of a class whose module nobody vouches for.

    What is imported already, and modules of packages that were installed on purpose, may be named
    by anyone; a module that merely lies on the path, such as one in the directory of a stranger's
    run, only by the user. Modules that are programs are never imported.

    Raises:
        UsageError: it says how to allow the module.
    """
    module = path.partition(":")[0]
    package = module.partition(".")[0]
    if module in sys.modules:
        return
    if "__main__" in module.split("."):
        raise UsageError(
            f'"{path}" names a program, which would run when it is imported. Name a class of a'
            " module."
        )
    if (
        package in {"saddlepoint", *_installed()}
        or {module, package} & _trusted()
        or not _exists(package)
    ):
        return
    raise UsageError(
        f'"{path}" is of a module that belongs to no installed package. Importing it runs its code,'
        " which may be a stranger's where a file names it. If you trust it, name it on the"
        f" command line (--optimizer {path}), or set {TRUSTED}={module}."
    )


def imported(module: str) -> ModuleType:
    """Import a module; one that the user named may lie in the current directory, where nothing else is looked for.

    A module of an installed package does not: what such a package would import if it were
    installed, a file there must not be taken for.
    """
    package = module.partition(".")[0]
    named = {module, package} & _trusted() and not is_installed(package)
    with importable_here() if named else nullcontext():
        return import_module(module)


def is_installed(package: str) -> bool:
    """Say whether a top-level module belongs to a distribution that was installed."""
    return package in _installed()


def _trusted() -> set[str]:
    return {name.strip() for name in os.environ.get(TRUSTED, "").split(",") if name.strip()}


@cache
def _installed() -> frozenset[str]:
    """Return the packages that a distribution brought: neither the standard library nor what lies about."""
    return frozenset(packages_distributions())


def _exists(package: str) -> bool:
    """Say whether there is such a top-level module, without running anything of it; of one that is not there an error is said later."""
    try:
        with importable_here():
            return find_spec(package) is not None
    except (ImportError, ValueError):
        return False
