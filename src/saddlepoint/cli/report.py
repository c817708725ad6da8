"""The command ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saddlepoint.cli.app import app, parse_path
from saddlepoint.cli.streams import printable
from saddlepoint.errors import UsageError


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint report runs/digits-gradient-adam-001` · a run\n\n"
        "`saddlepoint report comparisons/evidence -o evidence.html` · a comparison"
    )
)
def report(
    directory: Annotated[
        Path,
        typer.Argument(
            parser=parse_path,
            metavar="RUN_OR_COMPARISON",
            help="Directory of a run or of a comparison.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            parser=parse_path,
            metavar="PATH",
            help="HTML file to write.",
            show_default="report.html in the directory",
        ),
    ] = None,
) -> None:
    """Write an HTML report about a run or a comparison: charts, samples, findings, numbers.

    The report is a single file that needs no network.
    """
    from saddlepoint.io.atomic import write_atomic
    from saddlepoint.report import make_report

    if output is not None and output.suffix.lower() not in ("", ".html", ".htm"):
        raise UsageError(
            f'-o {output}: a report is an HTML page, not a file "{output.suffix}". Choose a name'
            " that ends in .html."
        )
    # a path may contain bytes that are not valid UTF-8
    page = make_report(directory).encode(errors="backslashreplace")
    if output is None:
        output = (directory if directory.is_dir() else directory.parent) / "report.html"
    try:
        write_atomic(output, page)
    except OSError as error:
        raise UsageError(
            f"Cannot write {output}: {error.strerror or error}. Choose another file with -o."
        ) from error
    typer.echo(printable(f"{len(page) / 1e6:.1f} MB, open it in a browser: {output}"))
