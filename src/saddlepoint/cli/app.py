"""The typer application, exit codes, and types of arguments that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

FINDINGS, USAGE, DIVERGED = 1, 2, 3
"""Exit codes: ``diagnose`` or ``doctor`` found something, an error of the user, divergence."""

MAX_SEED = (1 << 63) - 1

app = typer.Typer(
    name="saddlepoint",
    help="Train GANs and other differentiable games with gradients, curvature and subgradients.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(requested: bool) -> None:
    if requested:
        import saddlepoint

        typer.echo(f"saddlepoint {saddlepoint.__version__}")
        raise typer.Exit


@app.callback()
def global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Train GANs and other differentiable games with gradients, curvature and subgradients."""


def parse_integer(text: str) -> int:
    """Return an integer; exponents and underscores are allowed.

    Raises:
        ValueError: the text is not an integer.

    >>> parse_integer("1e3"), parse_integer("20_000")
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


def integer(minimum: int | None = None, maximum: int | None = None) -> Callable[[str], int]:
    """Return a parser for an option that is an integer from ``minimum`` to ``maximum``."""

    def parse(text: str) -> int:
        try:
            number = parse_integer(str(text))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        if minimum is not None and number < minimum:
            raise typer.BadParameter(f"{number} is less than {minimum}, the minimum.")
        if maximum is not None and number > maximum:
            raise typer.BadParameter(f"{number} is more than {maximum}, the maximum.")
        return number

    return parse


def parse_path(text: str) -> Path:
    """Return a path; an empty one, which would be the current directory, is refused."""
    if not str(text):
        raise typer.BadParameter("The path is empty.")
    return Path(text)


RunArgument = Annotated[
    Path,
    typer.Argument(
        parser=parse_path,
        metavar="RUN",
        help="Run directory, as printed by `saddlepoint train`.",
        show_default=False,
    ),
]
