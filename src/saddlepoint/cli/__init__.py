"""The command line. Heavy imports happen inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Sequence

from saddlepoint.errors import DistributedError, DivergenceError, UsageError
from saddlepoint.extras import needs

with needs("train", "The command line"):
    import typer

    from saddlepoint.cli import (  # noqa: F401 -- each registers its commands
        checking,
        comparing,
        listing,
        looking,
        reporting,
        training,
    )
    from saddlepoint.cli.app import DIVERGED, USAGE, app, printable
    from saddlepoint.cli.ranks import leave_outcome
    from saddlepoint.cli.streams import surviving_output

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}

_LONGEST = 2000
"""Characters of a message; what a file holds may be much longer."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake ends with a sentence and exit code 2, a diverged run with 3."""
    with surviving_output():
        _run(arguments)


def _run(arguments: Sequence[str] | None) -> None:
    warnings.showwarning = lambda message, *_: typer.echo(
        f"note: {printable(str(message))}", err=True
    )
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="saddlepoint")
    except SystemExit as end:  # how typer says that a command is done
        leave_outcome(end.code if isinstance(end.code, int) else 0)
    except DivergenceError as error:
        _say(str(error))
        leave_outcome(DIVERGED)
    except UsageError as error:
        _say(str(error))
        leave_outcome(USAGE)
    except DistributedError as error:
        if error.told:
            leave_outcome(USAGE)
        _say(str(error))
        sys.exit(USAGE)  # no outcome: started again, these processes may succeed
    # no permission, a name that is too long, a disk that is full: nothing that a traceback explains
    # better
    except OSError as error:
        if error.filename is None and error.errno not in _DISK:
            raise  # no file that the user could look at
        where = "" if error.filename is None else f"{error.filename}: "
        kept = "What is finished is kept; give the command again when the cause is gone."
        remedy = kept if error.errno in _DISK else "Look at the path and its permissions."
        _say(f"{where}{error.strerror or error}. {remedy}")
        leave_outcome(USAGE)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        said = str(error).partition("\n")[0]
        _say(
            f"The memory does not suffice{': ' if said else ''}{said}. Choose smaller networks,"
            " batches or numbers of samples."
        )
        leave_outcome(USAGE)


def _out_of_memory(error: Exception) -> bool:
    """PyTorch's errors are known by their texts: on the CPU they have no type of their own, and PyTorch may not be loaded."""
    texts = (
        "not enough memory",
        "can't allocate memory",
        "out of memory",
        "Storage size calculation overflowed",
        "multiplication overflow",
    )
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


def _say(message: str) -> None:
    sys.stdout.flush()
    short = (
        message
        if len(message) <= _LONGEST
        else f"{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}"
    )
    typer.echo(f"Error: {printable(short)}", err=True)
