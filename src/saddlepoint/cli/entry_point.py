"""``main``: the command line with error messages and exit codes."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Sequence

import typer

from saddlepoint.cli.app import DIVERGED, USAGE, app
from saddlepoint.cli.processes import exit_for_good
from saddlepoint.cli.streams import printable, surviving_output
from saddlepoint.errors import DistributedError, DivergenceError, UsageError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}

_MAX_MESSAGE = 2000
"""Characters of a message; text in a file can be much longer."""

_OUT_OF_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "Storage size calculation overflowed",
    "multiplication overflow",
)
"""Parts of PyTorch's messages: on the CPU these errors have no type of their own."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Errors of the user and of the disk end with a message and exit code 2, a diverged run with 3.

    Args:
        arguments: the words after ``saddlepoint``; those of this process by default.
    """
    with surviving_output():
        warnings.showwarning = lambda message, *_: typer.echo(
            f"note: {printable(str(message))}", err=True
        )
        words = None if arguments is None else [*arguments]
        try:
            app(args=words, prog_name="saddlepoint")
        except SystemExit as end:  # raised by typer when a command is done
            exit_for_good(end.code if isinstance(end.code, int) else 0)
        except DivergenceError as error:
            _print_error(str(error))
            exit_for_good(DIVERGED)
        except UsageError as error:
            _print_error(str(error))
            exit_for_good(USAGE)
        except DistributedError as error:
            if error.told:
                exit_for_good(USAGE)
            _print_error(str(error))
            sys.exit(USAGE)  # not for good: these processes may succeed when started again
        # no permission, a name that is too long, a full disk: a traceback would not help
        except OSError as error:
            if error.filename is None and error.errno not in _DISK_ERRORS:
                raise  # the user could not look at any file
            where = "" if error.filename is None else f"{error.filename}: "
            if error.errno in _DISK_ERRORS:
                remedy = "Finished results are kept; repeat the command when the cause is removed."
            else:
                remedy = "Check the path and its permissions."
            _print_error(f"{where}{error.strerror or error}. {remedy}")
            exit_for_good(USAGE)
        except (MemoryError, RuntimeError) as error:
            text = str(error)
            if not isinstance(error, MemoryError) and not any(
                part in text for part in _OUT_OF_MEMORY
            ):
                raise
            first_line = text.partition("\n")[0]
            _print_error(
                f"Out of memory{': ' if first_line else ''}{first_line}. Choose smaller networks,"
                " batches or numbers of samples."
            )
            exit_for_good(USAGE)


def _print_error(message: str) -> None:
    sys.stdout.flush()
    if len(message) > _MAX_MESSAGE:
        half = _MAX_MESSAGE // 2
        message = f"{message[:half]} … {message[-half:]}"
    typer.echo(f"Error: {printable(message)}", err=True)
