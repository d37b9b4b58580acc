"""docs/architecture.md: its counts are the code's, and what it says one touches is enough."""

import ast
import pathlib
import re

import numpy as np
import pytest

from llama2_jax import recipe
from llama2_jax.training.metrics import read_metrics
from tests.docs.own_objective import experiment
from tests.smallest import shrink

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()


def lines_of(file, names):
    """The lines of functions and classes of a file, with their docstrings."""
    nodes = {
        node.name: node
        for node in ast.parse((ROOT / "llama2_jax" / file).read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    return sum(nodes[name].end_lineno - nodes[name].lineno + 1 for name in names)


def test_the_path_of_a_preference_pair_is_counted():
    rows = re.findall(r"^\| `([\w/]+\.py)` \| (.+?) \| (\d+) \|$", PAGE, re.MULTILINE)
    counts = [lines_of(file, re.findall(r"`(\w+)`", functions)) for file, functions, _ in rows]
    for (file, _, written), count in zip(rows, counts, strict=True):
        # Rows are allowed to be a tenth off: they say where the path is long, and functions change.
        assert abs(int(written) - count) <= max(5, 0.1 * count), f"{file} has {count} lines on the path"
    files, total = map(int, re.search(r"(\d+) files and about (\d+) lines", PAGE).groups())
    assert files == len(rows) and abs(total - sum(counts)) < 0.1 * total


def test_every_file_that_the_page_names_exists():
    """But for the three of the example."""
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|md))`", PAGE))
    found = {path for path in named if any((ROOT / base / path).exists() for base in ("", "llama2_jax", "pipeline"))}
    found |= {path for path in named if (ROOT / "llama2_jax" / "pipeline" / path).exists()}
    assert named - found == {"objectives/ipo.py", "stages/ipo.py", "experiments/ipo.py"}


def test_an_objective_with_its_stage_takes_three_files():
    files = sorted((ROOT / "tests/docs/own_objective").glob("*.py"))
    assert [file.stem for file in files] == ["experiment", "objective", "stage"]
    written = int(re.search(r"three files and about (\d+) lines", PAGE).group(1))
    assert abs(written - sum(len(file.read_text().splitlines()) for file in files)) < 0.1 * written


@pytest.mark.slow
def test_the_three_files_are_enough(tmp_path):
    """IPO starts at the square of 1 / (2 beta), since the policy is the reference, and learns what was preferred."""
    config = shrink(experiment.get_config())
    assert dict(config.versions)["ipo"] == "ipo" and "ipo" in config.report.inputs.stages
    config.stages = ("tokenizer", "pretrain", "sft_public", "sft", "rlhf_v1_annotation", "ipo")
    config.ipo.update({"learning_rate": 3e-3, "log_every": 1, "epochs": 12})
    recipe.run(config, str(tmp_path))
    rows = read_metrics(tmp_path / "ipo" / "metrics.jsonl")
    # Float32 sums of log-probabilities, packed into other rows.
    assert rows[0]["loss"] == pytest.approx((1 / (2 * config.ipo.beta)) ** 2, rel=1e-4)
    assert np.mean([row["loss"] for row in rows[-4:]]) < 0.8 * rows[0]["loss"]
    assert np.mean([row["accuracy"] for row in rows[-4:]]) > 0.75
