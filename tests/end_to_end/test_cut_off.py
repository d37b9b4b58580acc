"""The whole recipe, shrunk: cut off anywhere it goes on to the same bits."""

import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments import rlhf_v5
from llama2_jax import recipe
from llama2_jax.pipeline import sampling
from llama2_jax.stages import ppo, rejection_sampling
from llama2_jax.training import loop
from llama2_jax.training.checkpoint_folder import CheckpointError
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.interruption import InterruptedRunError, Interruption
from llama2_jax.training.metrics import MetricsWriter
from tests.end_to_end.whole_run import assert_same_stage, read_report, rows, run
from tests.smallest import shrink

pytestmark = pytest.mark.slow


# The pretraining has 12 steps, and a checkpoint after 5, 10 and 12.
@pytest.mark.parametrize(
    ("owner", "name", "call", "after"),
    [
        (loop, "_next_batch", 4, False),
        (loop, "_next_batch", 9, False),
        (Checkpoints, "save", 1, True),
        (Checkpoints, "save", 2, False),
        (Checkpoints, "save", 3, True),
    ],
    ids=["before any checkpoint", "between two", "behind the first", "before the second", "behind the last"],
)
def test_pretraining_that_was_cut_off(finished, begun, cut_off, owner, name, call, after):
    workdir = begun("pretrain")
    cut_off(workdir, "pretrain", owner, name, call, after)
    assert not (workdir / "pretrain" / "stage.json").exists()
    run(workdir, until="pretrain")
    assert_same_stage(workdir / "pretrain", finished / "pretrain")


# PPO has 4 iterations; the held-out reward is measured, and all is saved, at 0, 2 and 4.
@pytest.mark.parametrize(
    ("owner", "name", "call", "after"),
    [
        (ppo, "collect", 2, True),
        (ppo, "collect", 4, False),
        (MetricsWriter, "write", 4, True),
        (Checkpoints, "save", 2, True),
        (Checkpoints, "save", 3, True),
    ],
    ids=[
        "within the second iteration",
        "behind the third iteration",
        "behind a held-out reward",
        "behind the second checkpoint",
        "behind the third checkpoint",
    ],
)
def test_ppo_that_was_cut_off(finished, begun, cut_off, owner, name, call, after):
    workdir = begun("rlhf_v5_ppo")
    cut_off(workdir, "rlhf_v5_ppo", owner, name, call, after)
    run(workdir, until="rlhf_v5_ppo")
    assert_same_stage(workdir / "rlhf_v5_ppo", finished / "rlhf_v5_ppo")


def test_ppo_that_was_asked_to_stop(finished, begun, monkeypatch):
    """Within the third iteration, behind which no save is due: it is finished and saved all the same."""
    workdir, interruption, collect, calls = begun("rlhf_v5_ppo"), Interruption(), ppo.collect, []

    def asked(*arguments):
        calls.append(None)
        if len(calls) == 3:
            interruption.ask(signal.SIGTERM)
        return collect(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ppo, "collect", asked)
        with pytest.raises(InterruptedRunError, match="rlhf_v5_ppo is saved after iteration 3 of 4"):
            recipe.run(shrink(rlhf_v5.get_config()), str(workdir), "rlhf_v5_ppo", interruption=interruption)
    assert len(calls) == 3
    # The best policy is of an earlier iteration: where it is damaged, an older one must not pass for it.
    shutil.copytree(workdir / "rlhf_v5_ppo", workdir / "whole")
    best = max((workdir / "rlhf_v5_ppo" / "checkpoints").iterdir(), key=lambda path: int(path.name))
    (best / "params" / "_METADATA").unlink()
    with pytest.raises(CheckpointError, match=f"the best policy so far, of iteration {best.name}, is missing from"):
        run(workdir, until="rlhf_v5_ppo")
    shutil.rmtree(workdir / "rlhf_v5_ppo")
    (workdir / "whole").rename(workdir / "rlhf_v5_ppo")
    run(workdir, until="rlhf_v5_ppo")
    assert_same_stage(workdir / "rlhf_v5_ppo", finished / "rlhf_v5_ppo")


def test_a_round_that_was_cut_off_between_sampling_and_fine_tuning(finished, begun, cut_off, monkeypatch):
    """From the end of a round on, and once more from the middle of the next one's last stage: to the same report."""
    workdir = begun("rlhf_v5_annotation")
    stage = "rlhf_v5_rejection_sampling"
    cut_off(workdir, stage, rejection_sampling, "finetune", 1)
    samples = (workdir / stage / "samples.jsonl").stat().st_mtime_ns
    with monkeypatch.context() as patched:
        patched.delattr(sampling, "generate")  # nothing is sampled twice
        run(workdir, until=stage)
    assert (workdir / stage / "samples.jsonl").stat().st_mtime_ns == samples
    run(workdir)
    for name in rlhf_v5.get_config().stages:
        if name != "report":
            assert_same_stage(workdir / name, finished / name)
    assert read_report(workdir) == read_report(finished)


PROGRAM = """
import sys
from experiments import pretrain
from llama2_jax import recipe
from llama2_jax.sharding.machine import enable_compilation_cache
from tests.smallest import shrink

config = shrink(pretrain.get_config())
config.pretrain.update({"steps": 40, "save_every": 4, "log_every": 1})
enable_compilation_cache(sys.argv[2])
recipe.run(config, sys.argv[1])
"""


def test_a_process_that_is_killed_again_and_again(tmp_path):
    """SIGKILL at two moments, the same command each time; the moments are random and hit steps and saves alike."""

    def start(workdir):
        root = pathlib.Path(__file__).parents[2]
        return subprocess.Popen([sys.executable, "-c", PROGRAM, workdir, tmp_path / "compiled"], cwd=root)

    assert start(tmp_path / "whole").wait(timeout=300) == 0
    draw, metrics = random.Random(0), tmp_path / "killed" / "pretrain" / "metrics.jsonl"
    killed_at = 0
    for _ in range(2):
        process, goal = start(tmp_path / "killed"), killed_at + draw.randint(5, 16)
        deadline = time.monotonic() + 300
        while killed_at < goal and process.poll() is None and time.monotonic() < deadline:
            killed_at = max(killed_at, len(metrics.read_text().splitlines()) if metrics.exists() else 0)
            time.sleep(draw.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start(tmp_path / "killed").wait(timeout=300) == 0
    assert [row["step"] for row in rows(metrics) if "loss" in row] == list(range(1, 41))
    assert [row["step"] for row in rows(metrics) if "held_out_loss" in row] == list(range(5, 41, 5))
    assert_same_stage(tmp_path / "killed" / "pretrain", tmp_path / "whole" / "pretrain")
