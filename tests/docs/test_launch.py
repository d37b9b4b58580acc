"""docs/launch.md names files, flags and commands that are there."""

import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs/launch.md").read_text()


def test_every_launcher_is_told_of():
    told = set(re.findall(r"\]\(\.\./(launch/[\w.]+)\)", PAGE))
    assert told == {f"launch/{path.name}" for path in (ROOT / "launch").iterdir() if path.is_file()}


@pytest.mark.parametrize("scale", ["tiny", "7b"])
def test_the_fields_that_it_sets_are_there(scale):
    experiments = set(re.findall(r"experiments/(\w+)\.py", PAGE))
    fields = set(re.findall(r"--config\.(\w+(?:\.\w+)*)=", PAGE))
    assert experiments and fields
    for name in experiments:
        config = importlib.import_module(f"experiments.{name}").get_config(scale)
        for field in fields:
            part = config
            for word in field.split("."):
                assert word in part, f"experiments/{name}.py has no config.{field}"
                part = part[word]


def test_the_settings_that_it_names_are_the_scripts():
    scripts = "".join((ROOT / "launch" / name).read_text() for name in ("tpu_pod.sh", "slurm.sh"))
    settings = set(re.findall(r"^([A-Z_]+)=\$\{\1", scripts, re.MULTILINE))
    assert {"PROJECT", "CONFIG", "WORKDIR"} <= settings
    named = set(re.findall(r"\b([A-Z]+(?:_[A-Z]+)*)=", PAGE)) | set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", PAGE))
    # The environment of JAX, and the signal.
    assert {name for name in named if not name.startswith("JAX_") and name != "SIGTERM"} <= settings
    actions = set(re.findall(r"launch/tpu_pod\.sh (\w+)", PAGE))
    assert actions <= set(re.findall(r"^  (\w+)\)$", scripts, re.MULTILINE))
