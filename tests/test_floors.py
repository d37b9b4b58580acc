"""The house keeps its layout: nothing imports upward, rooms of one floor do not know each other, stages/ has stages."""

import ast
import pathlib

import pytest

import llama2_jax

PACKAGE = pathlib.Path(llama2_jax.__file__).parent
EXPERIMENTS = PACKAGE.parent / "experiments"

# From the ground up; docs/architecture.md has a sentence about each.
FLOORS = (
    ("paths",),
    ("models", "objectives", "text", "sharding", "sizing", "hub"),
    ("training", "inference", "data", "interop"),
    ("annotation", "evaluation", "corpus"),
    ("pipeline", "report"),
    ("stages",),
    (
        "recipe",
        "main",
        "dry_run",
        "rehearsal",
        "print_config",
        "config_paths",
        "convert",
        "loading",
        "chat",
        "red_team",
    ),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Models name the axes that sharding splits; a door hands over to what it opens.
NEIGHBOURS = {
    ("models", "sharding"),
    ("main", "recipe"),
    ("main", "dry_run"),
    ("main", "print_config"),
    ("main", "rehearsal"),
    ("rehearsal", "recipe"),
    ("main", "config_paths"),
    ("print_config", "recipe"),
    ("dry_run", "recipe"),
    ("chat", "loading"),
    ("red_team", "chat"),
    ("red_team", "loading"),
    ("convert", "loading"),
}


def imported_names(path):
    """The dotted names that a file imports, such as "llama2_jax.models.config.ModelConfig"."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imports(path):
    """(package, room) of what a file imports of this project."""
    for name in imported_names(path):
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


def test_every_room_has_its_floor():
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__pycache__", "miniature"} == FLOOR.keys()


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").glob("*.py")), ids=lambda path: path.stem)
def test_stages_has_stages_alone(path):
    """A file of stages/ is one stage: its `run`, perhaps `check` and `device_work`, and it imports no other stage."""
    if path.name == "__init__.py":
        return
    functions = {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    assert "run" in functions, f"{path.name} has no `run`: what stages share belongs in pipeline/"
    assert [argument.arg for argument in functions["run"].args.args] == ["config", "inputs", "runtime"]
    if "check" in functions:
        assert [argument.arg for argument in functions["check"].args.args] == ["config", "inputs", "count"]
    if "device_work" in functions:
        assert [argument.arg for argument in functions["device_work"].args.args] == ["config", "model", "mesh"]
    assert not [name for name in imported_names(path) if name.startswith("llama2_jax.stages")]


def test_nothing_but_stages_and_configs_name_a_stage():
    """Stages are chosen by a config's dotted path: only recipe.py names one, which takes the place of others."""
    for path in PACKAGE.rglob("*.py"):
        assert not [name for name in imported_names(path) if name.startswith("llama2_jax.stages")], path.name


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.rglob("*.py")), ids=lambda path: str(path.relative_to(EXPERIMENTS)))
def test_experiments_are_made_of_parts(path):
    """Pages import parts and earlier pages; parts import no page; neither knows more of the package than its models."""
    part = path.parent.name == "parts"
    for name in imported_names(path):
        package, _, rest = name.partition(".")
        if package == "experiments":
            assert not part or rest == "parts" or rest.startswith("parts."), f"{path.name} imports the page {name}"
        elif package == "llama2_jax":
            assert rest.startswith("models.config"), f"{path.name} imports {name}: configs name code by dotted paths"


def test_experiments_import_in_no_circle():
    files = {
        ".".join(path.relative_to(EXPERIMENTS.parent).with_suffix("").parts): path for path in EXPERIMENTS.rglob("*.py")
    }
    targets = {
        name: {target for one in imported_names(path) for target in (one, one.rpartition(".")[0]) if target in files}
        for name, path in files.items()
    }

    def reached(name, seen=()):
        assert name not in seen, f"a circle of imports: {' -> '.join((*seen, name))}"
        for target in targets[name]:
            reached(target, (*seen, name))

    for name in files:
        reached(name)


def test_the_check_sees_an_import_that_goes_up(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text("from llama2_jax import stages\nimport llama2_jax.models.config\n")
    assert [there for _, there in imports(file)] == ["stages", "models"]
    assert not allowed("models", "stages") and not allowed("training", "inference")
    assert not allowed("stages", "miniature") and not allowed("sizing", "sharding")
