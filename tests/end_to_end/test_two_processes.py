"""The whole recipe, shrunk: two processes do what one does."""

import json
import shutil

import pytest

from tests.end_to_end.whole_run import read_report, rows
from tests.two_processes import started

pytestmark = pytest.mark.slow

TWO_PROCESSES = """
import sys
from experiments import rlhf_v5
from llama2_jax import recipe
from llama2_jax.sharding.processes import join
from tests.smallest import shrink

join()
recipe.run(shrink(rlhf_v5.get_config()), sys.argv[1])
"""

# One stage of each kind (a rejection sampling fine-tunes too); the others are taken from the run of a single process.
RUN_BY_TWO = (
    "tokenizer", "pretrain", "rlhf_v1_annotation", "rlhf_v1_helpfulness_reward", "rlhf_v1_rejection_sampling",
    "rlhf_v3_ghost_attention", "rlhf_v5_context_distillation", "rlhf_v5_ppo", "evaluation", "report",
)  # fmt: skip


def test_two_processes_of_four_devices_do_what_one_of_eight_does(finished, tmp_path):
    workdir = tmp_path / "workdir"
    shutil.copytree(finished, workdir, ignore=lambda folder, names: RUN_BY_TWO if folder == str(finished) else ())
    with started(2, ["-c", TWO_PROCESSES, workdir], tmp_path) as run:
        assert run.wait(900) == [0, 0], run.texts()
    for name in RUN_BY_TWO:
        one, two = (json.loads((folder / name / "stage.json").read_text())["results"] for folder in (finished, workdir))
        assert_close(one, two, name)
        assert sorted(path.name for path in (finished / name).iterdir()) == sorted(
            path.name for path in (workdir / name).iterdir()
        )
    for name in ("pretrain", "rlhf_v1_helpfulness_reward", "rlhf_v5_ppo"):
        assert_close(rows(finished / name / "metrics.jsonl"), rows(workdir / name / "metrics.jsonl"), name)
    assert_close(read_report(finished), read_report(workdir), "report")


def assert_close(one, two, where):
    """The same but for sums over devices that are made in another order."""
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for name in one:
            assert_close(one[name], two[name], f"{where}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(two), where
        for number, pair in enumerate(zip(one, two, strict=True)):
            assert_close(*pair, f"{where}[{number}]")
    else:
        assert one == (pytest.approx(two, rel=1e-3, abs=1e-4) if isinstance(one, float) else two), where
