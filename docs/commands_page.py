"""The part of docs/reference/commands.md that comes from the command line itself."""

import typer

from saddlepoint.cli import app


def commands():
    """Return Markdown with every command, its arguments and options, their defaults, and its
    examples."""
    parts = []
    for name, command in typer.main.get_command(app).commands.items():
        rows = [row(parameter) for parameter in command.params]
        table = ["| argument or option | meaning | default |", "|---|---|---|", *rows]
        parts += [f"## `saddlepoint {name}`", command.help, "\n".join(table), command.epilog or ""]
    return "\n\n".join(parts)


def row(parameter):
    """Return the row of an argument or option."""
    names = ", ".join(f"`{option}`" for option in parameter.opts)
    shown = parameter.show_default
    if parameter.required:
        default = "required"
    elif isinstance(shown, str):
        default = shown
    elif shown and parameter.default not in (None, "", False):
        default = f"`{parameter.default}`"
    else:
        default = ""
    if parameter.metavar:
        names += f" `{parameter.metavar}`"
    cells = [cell.replace("|", r"\|") for cell in (names, parameter.help, default)]
    return f"| {' | '.join(cells)} |"
