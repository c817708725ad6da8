"""Finding the user's own pair of networks by name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable

from torch import Tensor, nn

from saddlepoint.diagnostics.doctor.remarks import first_line
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.io.imports import current_directory_importable

Example = tuple[nn.Module, nn.Module, Tensor, Tensor]

_FORM = "package.module:factory"
_RETURNS = "(generator, discriminator, example_noise, example_real)"


def load_factory(path: str) -> Example:
    """Call the function named by ``path`` and return its generator, discriminator, example noise and example of real data.

    Modules in the current directory are found, after those of Python and of installed packages.

    Args:
        path: "package.module:factory"; the factory takes no arguments.

    Raises:
        UsageError: no colon, no such module, a module that fails to import, no such attribute, one
            that is not callable, a factory that raises, or one that returns anything else than two
            modules and two tensors.

    >>> load_factory("torch.nn")
    Traceback (most recent call last):
    ...
    saddlepoint.errors.UsageError: "torch.nn" names no function: write package.module:factory, with
    a colon.
    """
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise UsageError(f'"{path}" names no function: write {_FORM}, with a colon.')
    with current_directory_importable():
        factory = _attribute(module, name)
        try:
            returned = factory()
        except Exception as error:
            raise UsageError(
                f'"{path}" raised {type(error).__name__}: {first_line(error)} It is called without'
                f" arguments and returns {_RETURNS}."
            ) from error
    return _checked(path, returned)


def _attribute(module: str, name: str) -> Callable[[], object]:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module == missing or module.startswith(f"{missing}."):
            text = (
                f'There is no module "{missing}" in {os.getcwd()} or among the installed packages.'
                " Check the name and the directory."
            )
            raise UsageError(text) from error
        text = (
            f'Module "{module}" imports "{missing}", which is not installed. Install it or correct'
            " the import."
        )
        raise UsageError(text) from error
    except Exception as error:
        text = (
            f'Importing "{module}" raised {type(error).__name__}: {first_line(error)} Correct the'
            " module."
        )
        raise UsageError(text) from error
    if not hasattr(found, name):
        known = [
            key for key, value in vars(found).items() if callable(value) and not key.startswith("_")
        ]
        raise UsageError(f'Module "{module}" has no "{name}".' + did_you_mean(name, known))
    factory = getattr(found, name)
    if not callable(factory):
        raise UsageError(
            f'"{module}:{name}" is a {type(factory).__name__}, not a function. Name a function that'
            f" returns {_RETURNS}."
        )
    return factory  # type: ignore[no-any-return]


def _checked(path: str, returned: object) -> Example:
    if not isinstance(returned, tuple | list) or len(returned) != 4:
        what = (
            f"{len(returned)} values"
            if isinstance(returned, tuple | list)
            else f"a {type(returned).__name__}"
        )
        raise UsageError(f'"{path}" returned {what}, not the four values {_RETURNS}.')
    wanted = (
        ("generator", nn.Module),
        ("discriminator", nn.Module),
        ("example_noise", Tensor),
        ("example_real", Tensor),
    )
    for value, (role, kind) in zip(returned, wanted, strict=True):
        if not isinstance(value, kind):
            label = "torch.nn.Module" if kind is nn.Module else "torch.Tensor"
            raise UsageError(
                f'"{path}" returned a {type(value).__name__} as {role}, which must be a {label}. It'
                f" returns {_RETURNS}."
            )
    generator, discriminator, noise, real = returned
    return generator, discriminator, noise, real
