"""The command ``doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from saddlepoint.cli.app import FINDINGS, app
from saddlepoint.cli.streams import make_console, print_text
from saddlepoint.cli.tables import print_table

if TYPE_CHECKING:
    from rich.console import Console

    from saddlepoint.doctor import CostEstimate


@app.command(
    epilog=(
        "Examples:\n\n`saddlepoint doctor digits` · a problem of the library\n\n`saddlepoint doctor"
        " my_gan:make` · your networks: `make()` in my_gan.py returns (generator, discriminator,"
        " example_noise, example_real)"
    )
)
def doctor(
    target: Annotated[
        str, typer.Argument(help="Name of a problem, or package.module:factory.")
    ] = "digits",
    loss: Annotated[
        str | None,
        typer.Option(help="GAN loss.", show_default="the problem's, else non-saturating"),
    ] = None,
    r1: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Weight of the R1 gradient penalty.",
            show_default="the problem's, else 0",
        ),
    ] = None,
) -> None:
    """Check two networks before training: derivatives of every layer, buffers, losses, costs.

    The exit code is 1 if there is an error.
    """
    from saddlepoint.doctor import examine, load_factory

    console = make_console()
    if ":" in target:
        generator, discriminator, noise, real = load_factory(target)
        loss, r1 = loss or "non-saturating", r1 or 0.0
    else:
        from saddlepoint import registry
        from saddlepoint.problems.base import DISCRIMINATOR, GENERATOR

        problem = registry.build_problem(target, {})
        networks, batch = problem.networks(seed=0), problem.batch(step=0, size=64, seed=0)
        generator, discriminator = networks[GENERATOR], networks[DISCRIMINATOR]
        noise, real = batch.noise, batch.real
        loss, r1 = loss or problem.loss, problem.r1 if r1 is None else r1
    with console.status("examining"):
        found = examine(generator, discriminator, noise, real, loss=loss, r1=r1)

    errors = 0
    for finding in found.findings:
        where = "" if finding.layer in finding.message else f"{finding.player}, {finding.layer}: "
        print_text(console, f"{finding.level}: {where}{finding.message}")
        errors += finding.level == "error"
    if found.healthy:
        print_text(console, "No errors found.")
    else:
        print_text(console, f"{errors} error{'s' if errors > 1 else ''}.")
    _print_cost(console, found.cost)
    if not found.healthy:
        raise typer.Exit(FINDINGS)


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
        print_table(console, table)
    sizes = {
        "parameters": cost.parameter_bytes,
        "graph": cost.graph_bytes,
        "graph for curvature": cost.second_graph_bytes,
        "vectors of a solve": cost.solver_bytes,
    }
    known = [f"{title} {size / 2**20:.2f} MiB" for title, size in sizes.items() if size is not None]
    if known:
        print_text(console, f"Memory for a batch of {cost.batch}: {', '.join(known)}.")
    if cost.reason is not None:
        print_text(console, f"Not measured: {cost.reason}")
