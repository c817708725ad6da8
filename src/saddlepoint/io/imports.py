"""Which modules are imported, and from where.

Importing a module runs its code, and a configuration or a study may come from a stranger. Nothing
is imported from the current directory, except modules that the user names.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib import import_module
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from types import ModuleType

from saddlepoint.errors import UsageError

TRUST_VARIABLE = "SADDLEPOINT_TRUST"
"""Environment variable with a comma-separated list of modules that files may name.

It adds to the modules of installed packages. Subprocesses inherit it.
"""

_IMPORT_PATH = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]")
_SAFE_PATH = "PYTHONSAFEPATH"
_environment = threading.Lock()
_installed_packages = cache(packages_distributions)


@contextmanager
def safe_path_for_subprocesses() -> Iterator[None]:
    """Start Python subprocesses inside the block as with ``python -P``.

    They do not import modules from the current directory.
    """
    with _environment:
        before = os.environ.get(_SAFE_PATH)
        os.environ[_SAFE_PATH] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_SAFE_PATH]
            else:
                os.environ[_SAFE_PATH] = before


@contextmanager
def current_directory_importable() -> Iterator[None]:
    """Allow imports from the current directory inside the block.

    The directory is searched last, so that no file in it shadows an installed module.
    """
    directory = os.getcwd()
    sys.path.append(directory)
    try:
        yield
    finally:
        if directory in sys.path:  # an imported module may have changed the list
            last = len(sys.path) - 1 - sys.path[::-1].index(directory)
            del sys.path[last]


def trust_modules_named_in(*texts: str | None) -> None:
    """Allow modules that the user names on the command line, here and in subprocesses.

    Args:
        texts: values of options, such as ``extragradient+my_optimizers:Mine, adam`` or
            ``optimizer.name=my_optimizers:Mine``.
    """
    named: set[str] = set()
    for text in texts:
        if text is not None:
            named.update(_IMPORT_PATH.findall(text))
    if named:
        os.environ[TRUST_VARIABLE] = ",".join(sorted(_trusted_modules() | named))


def check_trusted(path: str) -> None:
    """Refuse the import path of a class whose module is not trusted.

    A module is trusted if it is loaded already, if it belongs to an installed package, or if the
    user named it. A module that merely lies on the path, such as one in a stranger's run directory,
    is not, and programs (``__main__``) are never imported. A module that does not exist passes: the
    import reports it.

    Args:
        path: ``module:Class``.

    Raises:
        UsageError: the module is not trusted; the message says how to allow it.
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
    if package == "saddlepoint" or is_installed(package) or {module, package} & _trusted_modules():
        return
    try:
        with current_directory_importable():
            exists = find_spec(package) is not None  # runs nothing of the package
    except (ImportError, ValueError):
        exists = False
    if exists:
        raise UsageError(
            f'The module of "{path}" belongs to no installed package. Importing it runs its code,'
            " which may be a stranger's if a file names it. If you trust it, name it on the command"
            f" line (--optimizer {path}), or set {TRUST_VARIABLE}={module}."
        )


def import_trusted(module: str) -> ModuleType:
    """Import a module; one that the user named is also looked for in the current directory.

    Modules of installed packages are not: a file there must not replace a module that such a
    package imports if it is installed.
    """
    package = module.partition(".")[0]
    named = {module, package} & _trusted_modules() and not is_installed(package)
    with current_directory_importable() if named else nullcontext():
        return import_module(module)


def is_installed(package: str) -> bool:
    """Return whether a top-level module belongs to an installed distribution."""
    return package in _installed_packages()


def _trusted_modules() -> set[str]:
    names = os.environ.get(TRUST_VARIABLE, "").split(",")
    return {name.strip() for name in names if name.strip()}
