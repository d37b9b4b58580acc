"""Nothing imports upward, and rooms of one floor do not know each other (the design of the house)."""

import ast
import pathlib

import pytest

import llama2_jax

PACKAGE = pathlib.Path(llama2_jax.__file__).parent

FLOORS = (
    ("models", "objectives", "text", "sharding", "sizing"),
    ("training", "inference", "data", "interop"),
    ("annotation", "evaluation"),
    ("pipeline", "report"),
    ("stages",),
    ("recipe", "main", "dry_run", "convert", "loading", "chat"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Models name the axes that sharding splits; a door hands over to what it opens.
NEIGHBOURS = {
    ("models", "sharding"),
    ("main", "recipe"),
    ("main", "dry_run"),
    ("dry_run", "recipe"),
    ("chat", "loading"),
    ("convert", "loading"),
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package in ("llama2_jax", "experiments", "tests"):
                yield package, rest.partition(".")[0]


def allowed(here, there):
    if here == there:
        return True
    if here == "miniature":
        return there == "text"
    if there not in FLOOR or here not in FLOOR:
        return False
    return FLOOR[there] < FLOOR[here] or (here, there) in NEIGHBOURS


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for package, there in imports(path):
        assert package == "llama2_jax", f"{path.name} imports {package}: the package stands on its own"
        assert here == "__init__" or allowed(here, there), f"{here} must not import {there}"


def test_the_check_sees_an_import_that_goes_up(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text("from llama2_jax import stages\nimport llama2_jax.models.config\n")
    assert [there for _, there in imports(file)] == ["stages", "models"]
    assert (
        not allowed("models", "stages") and not allowed("training", "inference") and not allowed("stages", "miniature")
    )
