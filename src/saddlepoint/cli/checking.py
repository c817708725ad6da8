"""The command ``doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from saddlepoint.cli.app import FINDINGS, app, make_console, say
from saddlepoint.cli.tables import show

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.doctor import CostEstimate, Examination


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint doctor digits` · a problem of the library\n\n`saddlepoint doctor"
        " my_gan:make` · yours: `make()` in my_gan.py returns (generator, discriminator,"
        " example_noise, example_real)"
    )
)
def doctor(
    what: Annotated[str, typer.Argument(help="A problem, or package.module:factory.")] = "digits",
    loss: Annotated[
        str | None, typer.Option(help="The GAN loss; the problem's, or non-saturating.")
    ] = None,
    r1: Annotated[
        float | None,
        typer.Option(min=0, help="Weight of the gradient penalty; the problem's, or 0."),
    ] = None,
) -> None:
    """Check two networks before they train: derivatives of every layer, buffers, losses, costs. Exit code 1 when something is wrong."""
    from saddlepoint.doctor import examine, load_factory

    console = make_console()
    if ":" in what:
        generator, discriminator, noise, real = load_factory(what)
        loss, r1 = loss or "non-saturating", r1 or 0.0
    else:
        from saddlepoint import registry
        from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR

        problem = registry.build_problem(what, {})
        networks, batch = problem.networks(seed=0), problem.batch(step=0, size=64, seed=0)
        generator, discriminator, noise, real = (
            networks[GENERATOR],
            networks[DISCRIMINATOR],
            batch.noise,
            batch.real,
        )
        loss, r1 = loss or problem.loss, problem.r1 if r1 is None else r1
    with console.status("examining"):
        found = examine(generator, discriminator, noise, real, loss=loss, r1=r1)
    _print(console, found)
    if not found.healthy:
        raise typer.Exit(FINDINGS)


def _print(console: Console, found: Examination) -> None:
    for finding in found.findings:
        where = "" if finding.layer in finding.message else f"{finding.player}, {finding.layer}: "
        say(console, f"{finding.level}: {where}{finding.message}")
    errors = sum(finding.level == "error" for finding in found.findings)
    say(
        console,
        "Nothing is wrong." if found.healthy else f"{errors} error{'s' if errors > 1 else ''}.",
    )
    _print_cost(console, found.cost)


def _print_cost(console: Console, cost: CostEstimate) -> None:
    from rich.table import Table

    table = Table("cost of", "ms", "plain gradients", box=None, header_style="bold")
    rows = {
        "gradient of both players": ("gradient", cost.gradient_ms),
        "the same, keeping its graph": ("graph", cost.graph_ms),
        "a product of the Jacobian": ("product", cost.product_ms),
        "a solve of ten products": ("solve", cost.solve_ms),
    }
    for title, (name, milliseconds) in rows.items():
        if milliseconds is not None:
            table.add_row(title, f"{milliseconds:.1f}", f"{cost.ratios.get(name, 1.0):.1f}")
    if table.row_count:
        show(console, table)
    sizes = {
        "parameters": cost.parameter_bytes,
        "graph": cost.graph_bytes,
        "graph for curvature": cost.second_graph_bytes,
    }
    sizes |= {"vectors of a solve": cost.solver_bytes}
    known = [f"{title} {size / 2**20:.2f} MiB" for title, size in sizes.items() if size is not None]
    if known:
        say(console, f"Memory for a batch of {cost.batch}: {', '.join(known)}.")
    if cost.reason is not None:
        say(console, f"Not measured: {cost.reason}")
