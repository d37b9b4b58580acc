"""A run of the whole recipe, shrunk, and what two such runs are compared by."""

import json

import jax
import numpy as np

from experiments import rlhf_v5
from llama2_jax import recipe
from llama2_jax.training.model_folder import load_model
from tests.smallest import shrink


def run(workdir, until=""):
    return recipe.run(shrink(rlhf_v5.get_config()), str(workdir), until=until)


def rows(path):
    """A file's rows, without what a clock says."""
    return [
        {k: v for k, v in json.loads(line).items() if k != "tokens_per_second"}
        for line in path.read_text().splitlines()
    ]


def read_report(workdir):
    """The report but for its times."""
    report = json.loads((workdir / "report" / "report.json").read_text())
    return {name: value for name, value in report.items() if name not in ("seconds", "ledger")}


def assert_same_stage(one, other):
    """Two runs of a stage: the same results, files and, bit for bit, parameters."""
    assert (
        json.loads((one / "stage.json").read_text())["results"]
        == json.loads((other / "stage.json").read_text())["results"]
    )
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())
    for path in one.glob("*.jsonl"):
        assert rows(path) == rows(other / path.name), path.name
    if (one / "model.json").exists():
        jax.tree.map(np.testing.assert_array_equal, load_model(one).params, load_model(other).params)
