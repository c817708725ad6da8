"""Imports go down only: the table of the architecture page, enforced."""

import ast
from pathlib import Path

import pytest

from saddlepoint import registry

SRC = Path(__file__).parents[1] / "src" / "saddlepoint"
LAYERS = [
    {"errors", "precision"},
    {"extras", "files", "importing", "vectors", "kronecker"},
    {"reading"},
    {"game", "distributed"},
    {"curvature", "games", "models", "data", "metrics"},
    {"rules", "optim"},
    {"layout", "pairing", "optimizer_state", "step_result"},
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


def room_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports, also inside functions; imports for the type checker only do not
    run and do not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    rooms = {name.split(".")[1] for name in names if name.startswith("saddlepoint.")}
    from_root = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "saddlepoint"
        for alias in node.names
    }
    assert from_root <= set(LEVEL), (
        f"{path}: imports {from_root - set(LEVEL)} through the package; name the module"
    )
    return rooms | from_root


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
    assert found == {"report", "errors", "extras", "reading"}


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
