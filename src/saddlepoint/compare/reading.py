"""Studies from files."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from saddlepoint.compare.methods import completed_methods
from saddlepoint.compare.study import Study
from saddlepoint.errors import UsageError
from saddlepoint.io.schemas import BOOL_AS_NUMBER, find_bool_as_number
from saddlepoint.training.config import Tree, read_yaml


def read_study(path: Path) -> Study:
    """Read a study from a YAML file.

    Methods may be given as a list of names (as ``--methods`` takes them) or as name → rule,
    optimizer, settings, space; what is left out there is what the name stands for.

    Raises:
        UsageError: the file is missing, not YAML, or no study; the sentence names the key.
    """
    tree = read_yaml(path)
    return study_from({"name": path.stem, **tree}, str(path))


def study_from(tree: Tree, where: str) -> Study:
    """Return a study from plain containers; a UsageError says what is wrong ``where``."""
    if "methods" in tree:
        tree = {**tree, "methods": completed_methods(tree["methods"], where)}
        tree.setdefault("baseline", next(iter(tree["methods"]), ""))
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}." for part in first["loc"])[:-1]
        said = first["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"{where}: {place}{': ' if place else ''}{said}{'' if said[-1] in '.?' else '.'}"
        ) from error
    flag = find_bool_as_number(tree, study)
    if flag is not None:
        raise UsageError(f"{where}: {flag}: {BOOL_AS_NUMBER}.")
    return study
