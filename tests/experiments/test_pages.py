"""experiments/ has pages that one runs and, in parts/, what they are made of; nothing imports in a circle."""

import ast
import pathlib
import re

import pytest

import experiments

FOLDER = pathlib.Path(experiments.__file__).parent
PAGES = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")
FILES = [*PAGES, *sorted((FOLDER / "parts").glob("*.py"))]


def imports(path):
    """The modules of experiments/ that a file imports, in functions too, as files."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = FOLDER.parent / f"{name.replace('.', '/')}.py"
            if name.startswith("experiments.") and file.exists():
                yield file


def circle_from(path, imported, way=()):
    """A way by which a file imports itself; empty where there is none."""
    for file in imported(path):
        if file in (path, *way) or (found := circle_from(file, imported, (*way, path))):
            return (*way, path, file) if file in (path, *way) else found
    return ()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_is_imported_in_a_circle(path):
    assert circle_from(path, imports) == ()


def test_a_circle_is_seen():
    graph = {"a": ["b", "c"], "b": [], "c": ["d"], "d": ["a"]}
    assert circle_from("a", graph.get) == ("a", "c", "d", "a")
    assert circle_from("b", graph.get) == ()


@pytest.mark.parametrize("path", sorted((FOLDER / "parts").glob("*.py")), ids=lambda path: path.stem)
def test_parts_import_no_page(path):
    assert not set(imports(path)) & set(PAGES)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_is_short_and_says_what_it_reaches_costs_and_how_it_is_run(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 120
    assert "\ndef get_config(argument: str = " in text
    described = ast.get_docstring(ast.parse(text))
    assert re.search(r"^Reaches \(tiny.*\): ", described, re.MULTILINE)
    assert re.search(r"^Costs \(tiny\): .*(minute|seconds)", described, re.MULTILINE)
    assert f"python -m llama2_jax.main --config=experiments/{path.name}" in described


@pytest.mark.parametrize("path", [*FILES, FOLDER.parent / "tests/smallest.py"], ids=lambda path: path.stem)
def test_no_stage_is_found_by_a_part_of_its_name(path):
    called = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not called & {"endswith", "startswith", "removesuffix", "removeprefix"}
