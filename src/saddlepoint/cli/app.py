"""The application that commands register with, and what they share: arguments, exit codes, output."""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.training import RunDirectory, Trainer
    from saddlepoint.training.run_directory import At

FINDINGS, USAGE, DIVERGED = 1, 2, 3

app = typer.Typer(
    name="saddlepoint",
    help="Train GANs and other differentiable games with gradients, curvature and subgradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(asked: bool) -> None:
    if asked:
        import saddlepoint

        typer.echo(f"saddlepoint {saddlepoint.__version__}")
        raise typer.Exit


def whole(text: str) -> int:
    """Return a whole number as people write it on a command line.

    >>> whole("1e3"), whole("20_000")
    (1000, 20000)
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise ValueError(f"{text[:40]!r} is not a whole number.")
    return int(number)


def counted(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    """Return what reads a whole number of an option, from ``least`` to ``most``."""

    def read(text: str) -> int:
        try:
            number = whole(str(text))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        if least is not None and number < least:
            raise typer.BadParameter(f"{number} is less than {least}, the least that is allowed.")
        if most is not None and number > most:
            raise typer.BadParameter(f"{number} is more than {most}, the most that is allowed.")
        return number

    return read


def path_given(text: str) -> Path:
    """Return a path of the command line; an empty one, which would be the current directory, is refused."""
    if not str(text):
        raise typer.BadParameter("The path is empty.")
    return Path(text)


Run = Annotated[
    Path,
    typer.Argument(
        parser=path_given,
        metavar="RUN",
        help="The directory that `saddlepoint train` printed.",
        show_default=False,
    ),
]


@app.callback()
def of_all_commands(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Train GANs and other differentiable games with gradients, curvature and subgradients."""


def load(path: Path, at: At = "last") -> tuple[Trainer, RunDirectory]:
    """Return the training of a run as it was at a checkpoint, and its directory."""
    from saddlepoint.training import RunDirectory, Trainer

    directory = RunDirectory.open(path)
    config = directory.read_config()
    training = Trainer(config)
    training.load_state_dict(directory.load_checkpoint(config, at))
    return training, directory


def make_console(*, quiet: bool = False) -> Console:
    """Return where to print: as wide as the terminal, 140 columns elsewhere; ``quiet`` prints nothing."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140, quiet=quiet)


def say(console: Console, text: str) -> None:
    """Print a sentence as it is, but for what a terminal would obey."""
    console.print(printable(text), markup=False, soft_wrap=True)


def printable(text: str) -> str:
    """Return a text without control and format characters and halves of characters: a name in a file must not steer the terminal.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else ascii(c)[1:-1]
        for c in text
    )
