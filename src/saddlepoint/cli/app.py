"""The application that commands register with, and what they share: arguments, exit codes, output."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.training import RunDirectory, Training
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

Run = Annotated[Path, typer.Argument(help="The directory that `saddlepoint train` printed.", show_default=False)]


def load(path: Path, at: At = "last") -> tuple[Training, RunDirectory]:
    """Return the training of a run as it was at a checkpoint, and its directory."""
    from saddlepoint.training import RunDirectory, Training

    directory = RunDirectory.open(path)
    config = directory.read_config()
    training = Training(config)
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
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else ascii(c)[1:-1] for c in text)
