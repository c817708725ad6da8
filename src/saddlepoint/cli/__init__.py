"""The command line. Heavy imports happen inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Sequence

import typer

from saddlepoint.cli import checking, comparing, listing, looking, reporting, training  # noqa: F401 -- each registers its commands
from saddlepoint.cli.app import DIVERGED, USAGE, app
from saddlepoint.cli.ranks import leave_outcome
from saddlepoint.errors import DivergenceError, RankError, UsageError

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake ends with a sentence and exit code 2, a diverged run with 3."""
    warnings.showwarning = lambda message, *_: typer.echo(f"note: {message}", err=True)
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
    except RankError as error:
        if error.told:
            leave_outcome(USAGE)
        _say(str(error))
        sys.exit(USAGE)  # no outcome: started again, these processes may succeed
    except BrokenPipeError:  # the reader of a pipe went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{where}{error.strerror}. What is finished is kept; give the command again when the cause is gone.")
        leave_outcome(USAGE)


def _say(message: str) -> None:
    sys.stdout.flush()
    typer.echo(f"Error: {message}", err=True)
