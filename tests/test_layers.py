"""Imports go down only: the table of the architecture page, enforced."""

import ast
from pathlib import Path

import pytest

from saddlepoint import registry

SRC = Path(__file__).parents[1] / "src" / "saddlepoint"
LAYERS = [
    {"errors", "precision"},
    {"extras", "vectors", "kronecker"},
    {"io"},
    {"game", "distributed"},
    {"curvature", "games", "models", "data", "metrics"},
    {"rules", "optim"},
    {"layout", "compatibility", "optimizer_state", "step_result"},
    {"game_optimizer"},
    {"problems", "testing", "diagnostics", "doctor"},
    {"registry"},
    {"training"},
    {"compare", "report"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
# within the third level curvature, games, models, data and metrics do not know each other
FILES = sorted(path for path in SRC.rglob("*.py") if path != SRC / "__init__.py")


KNOWN_CIRCULAR_IMPORTS: set[tuple[str, str]] = set()
"""(importing file, imported file): imports still to be removed. The list may only shrink."""


def room_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports_at_runtime(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Import statements of a file, also inside functions, but not under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in (
            "TYPE_CHECKING",
            "typing.TYPE_CHECKING",
        ):
            node.body = []
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def imported_rooms(path: Path) -> set[str]:
    names, from_root = set(), set()
    for node in imports_at_runtime(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            continue
        assert node.level == 0, f"{path}: relative import"
        names.add(node.module)
        if node.module == "saddlepoint":
            from_root |= {alias.name for alias in node.names}
    rooms = {name.split(".")[1] for name in names if name.startswith("saddlepoint.")}
    assert from_root <= set(LEVEL), (
        f"{path}: imports {from_root - set(LEVEL)} through the package; name the module"
    )
    return rooms | from_root


def imported_files(path: Path) -> set[str]:
    """Files of the library that a file imports; a package stands for its ``__init__.py``.

    ``from package import name`` is an import of the file of a submodule of that name, otherwise of
    the package. Parent packages, which Python runs implicitly, do not count.
    """
    files = set()
    for node in imports_at_runtime(path):
        if isinstance(node, ast.Import):
            files |= {file_of(alias.name) for alias in node.names}
        else:
            for alias in node.names:
                files.add(file_of(f"{node.module}.{alias.name}") or file_of(node.module))
    return files - {None}


def file_of(module: str) -> str | None:
    first, *parts = module.split(".")
    if first != "saddlepoint":
        return None
    base = SRC.joinpath(*parts)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return str(path.relative_to(SRC))
    return None


def circle_through(start: str, graph: dict[str, set[str]]) -> list[str] | None:
    """The shortest circle of imports that contains a file."""
    paths = [[start]]
    seen = set()
    for path in paths:
        for file in sorted(graph[path[-1]]):
            if file == start:
                return [*path, start]
            if file not in seen:
                seen.add(file)
                paths.append([*path, file])
    return None


def test_files_do_not_import_each_other_in_a_circle():
    graph = {str(path.relative_to(SRC)): imported_files(path) for path in SRC.rglob("*.py")}
    for importing, imported in sorted(KNOWN_CIRCULAR_IMPORTS):
        assert imported in graph[importing], f"remove {importing}, {imported} from the known ones"
        back = circle_through(imported, graph) or []
        assert importing in back, f"{importing}, {imported} are in no circle any more"
    for importing, imported in KNOWN_CIRCULAR_IMPORTS:
        graph[importing].discard(imported)

    circles = set()
    for file in sorted(graph):
        circle = circle_through(file, graph)
        if circle is not None and not any(set(circle) == set(known) for known in circles):
            circles.add(tuple(circle))
    shown = "\n".join(" -> ".join(circle) for circle in sorted(circles))
    assert not circles, f"circular imports:\n{shown}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_go_down_only(path):
    room = room_of(path)
    for other in imported_rooms(path) - {room}:
        assert LEVEL[other] < LEVEL[room], (
            f"{room} (layer {LEVEL[room]}) imports {other} (layer {LEVEL[other]})"
        )


def test_every_room_has_a_layer():
    assert {room_of(path) for path in FILES} == set(LEVEL)


def test_a_report_is_made_from_files_alone():
    found = set().union(*(imported_rooms(path) for path in FILES if room_of(path) == "report"))
    assert found == {"report", "errors", "extras", "io"}
    for path in FILES:
        if room_of(path) == "report":  # this file of io is the one that needs torch
            assert "saddlepoint.io.checkpoint" not in path.read_text(), path


def test_the_registry_names_rooms_below_it():
    for entry in [
        *registry.PROBLEMS.values(),
        *registry.RULES.values(),
        *registry.OPTIMIZERS.values(),
    ]:
        package, _, room = entry.path.partition(":")[0].partition(".")
        assert package == "torch" or LEVEL[room] < LEVEL["registry"]


def test_derivatives_are_taken_in_one_place_each():
    """Those with respect to parameters in one file, those with respect to a network's inputs in
    another, .backward() in none."""
    code = {str(path.relative_to(SRC)): "\n".join(code_lines(path)) for path in FILES}
    ways = (
        "autograd.grad(",
        "torch.func.grad",
        "torch.func import grad",
        "func.vjp",
        "jacrev(",
        "jacfwd(",
        "hessian(",
    )
    assert {name for name, text in code.items() if any(way in text for way in ways)} == {
        "curvature/linearization.py",
        "games/penalties.py",
    }
    assert not [name for name, text in code.items() if ".backward(" in text]


def test_the_library_never_seeds_torch_globally():
    """torch.manual_seed stands only behind fork_rng."""
    for path in FILES:
        text = "\n".join(code_lines(path))
        if "torch.manual_seed(" in text:
            assert "fork_rng" in text, path


def code_lines(path):
    """Source lines without docstrings."""
    tree = ast.parse(path.read_text())
    docs = [
        node.body[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and ast.get_docstring(node) is not None
    ]
    hidden = {line for doc in docs for line in range(doc.lineno, doc.end_lineno + 1)}
    return [
        line for number, line in enumerate(path.read_text().splitlines(), 1) if number not in hidden
    ]
