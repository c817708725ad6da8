"""Runs and comparisons in which every name and every text is a stranger's."""

import json
from pathlib import Path

import yaml

from saddlepoint.report import schemas

PAYLOAD = (
    "\"onload='window.ran=1' x='><script>window.ran=1</script><img src=x"
    ' onerror=window.ran=1></title></style></textarea><!--<a href="javascript:window.ran=1">{{ 7'
    " * 7 }}${7*7}%{x}\u2028</script>"
)
FIELDS: set[str] = set()
for kind in vars(schemas).values():
    if isinstance(kind, type) and issubclass(kind, schemas.Record):
        FIELDS |= set(kind.model_fields)
# the words that a file must choose from
KEPT = {"finished", "diverged", "failed", "smaller", "larger"}


def infected(value, key=""):
    """Return a tree in which the payload follows every text and name that a file may choose."""
    if isinstance(value, dict):
        return {
            name if name in FIELDS or key == "budget" else name + PAYLOAD: infected(inner, name)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [infected(inner, key) for inner in value]
    return (
        value + PAYLOAD
        if isinstance(value, str) and value not in KEPT and key != "picture"
        else value
    )


def infect(directory: Path) -> None:
    """Put the payload behind every name and text in the files of a run or a comparison."""
    for file in directory.rglob("*"):
        if file.suffix == ".json":
            file.write_text(json.dumps(infected(json.loads(file.read_text()))))
        elif file.suffix == ".jsonl":
            lines = [
                json.dumps(infected(json.loads(line))) for line in file.read_text().splitlines()
            ]
            file.write_text("\n".join(lines) + "\n")
        elif file.suffix == ".yaml":
            file.write_text(
                yaml.safe_dump(infected(yaml.safe_load(file.read_text())), allow_unicode=True)
            )
