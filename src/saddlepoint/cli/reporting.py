"""The command ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saddlepoint.cli.app import app, path_given, printable
from saddlepoint.errors import UsageError


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint report runs/digits-gradient-adam-001` · a run\n\n"
        "`saddlepoint report comparisons/evidence -o evidence.html` · a comparison"
    )
)
def report(
    what: Annotated[
        Path,
        typer.Argument(
            parser=path_given,
            metavar="RUN_OR_COMPARISON",
            help="The directory of a run or of a comparison.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            parser=path_given,
            metavar="PATH",
            help="HTML file; report.html in the directory by default.",
        ),
    ] = None,
) -> None:
    """Make one HTML file about a run or a comparison that opens without a network: courses, samples, findings, numbers, commands."""
    from saddlepoint.io.atomic import write_atomic
    from saddlepoint.report import make_report

    if output is not None and output.suffix.lower() not in ("", ".html", ".htm"):
        raise UsageError(
            f'-o {output}: a report is an HTML page, not a file "{output.suffix}". Let the name end'
            " in .html."
        )
    # a path may hold bytes that are no text
    page = make_report(what).encode(errors="backslashreplace")
    target = (what if what.is_dir() else what.parent) / "report.html" if output is None else output
    try:
        write_atomic(target, page)
    except OSError as error:
        raise UsageError(
            f"Cannot write {target}: {error.strerror or error}. Name another file with -o."
        ) from error
    typer.echo(printable(f"{len(page) / 1e6:.1f} MB, open it in a browser: {target}"))
