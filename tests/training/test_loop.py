"""The loop: interrupted equals uninterrupted, and what is not finite stops it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import grain
import jax
import numpy as np
import pytest

from llama2_jax.training.checkpoints import Checkpoints, restore_params
from llama2_jax.training.interruption import InterruptedRunError, Interruption
from llama2_jax.training.loop import FitSettings, NonFiniteError, fit
from llama2_jax.training.metrics import read_metrics
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.schedules import cosine
from llama2_jax.training.session import open_session
from llama2_jax.training.state import abstract_state, create_state
from llama2_jax.training.step import build_train_step
from llama2_jax.training.throughput import Throughput


@pytest.fixture(scope="module")
def trainer(toy):
    """fit with everything but the folder, the data and what a test wants otherwise; one program for all tests."""
    optimizer = make_optimizer(OptimizerConfig())

    def loss(params, batch, counts):
        value, metrics = toy.loss(params, batch, counts)
        return value * batch["scale"].mean() if "scale" in batch else value, metrics

    step = build_train_step(loss, toy.count, optimizer)

    def train(folder, batches, interruption=None, evaluate=None, shard_batch=None, **changes):
        settings = {"steps": 10, "learning_rate": cosine(0.02, 10, 2, 0.1), "save_every": 4, "log_every": 1}
        settings = FitSettings(**(settings | changes))
        kept = settings.kept_steps
        with open_session(folder, "training", interruption or Interruption(), 0.0, kept_steps=kept) as session:
            state = create_state(toy.init(), optimizer)
            return fit(state, step, batches, session, settings, evaluate=evaluate, shard_batch=shard_batch)

    return train


def rows(folder):
    """All rows, without the speed."""
    return [
        {name: value for name, value in row.items() if name != "tokens_per_second"}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def assert_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def uninterrupted(trainer, batches, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return trainer(folder, batches()), rows(folder)


def test_it_learns_and_logs_every_step(uninterrupted):
    state, written = uninterrupted
    assert state.step == 10
    assert [row["step"] for row in written] == list(range(1, 11))
    assert written[-1]["loss"] < written[0]["loss"]
    assert written[0]["learning_rate"] == pytest.approx(0.01) and written[-1]["learning_rate"] == pytest.approx(0.002)
    assert {"loss", "grad_norm", "accuracy"} < written[0].keys()


def test_stopped_and_started_again_equals_uninterrupted(trainer, batches, uninterrupted, tmp_path):
    trainer(tmp_path, batches(), steps=5)
    state = trainer(tmp_path, batches())
    assert_equal(state, uninterrupted[0])
    assert rows(tmp_path) == uninterrupted[1]


@pytest.mark.parametrize("dies_at", [1, 5, 7, 10])
def test_killed_between_saves_equals_uninterrupted(trainer, batches, uninterrupted, tmp_path, dies_at):
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, batches(dies_at=dies_at))
    state = trainer(tmp_path, batches())
    assert_equal(state, uninterrupted[0])
    assert rows(tmp_path) == uninterrupted[1]


def test_a_finished_training_is_restored_and_not_continued(trainer, batches, uninterrupted, tmp_path):
    trainer(tmp_path, batches())
    again = batches(dies_at=11)
    assert_equal(trainer(tmp_path, again), uninterrupted[0])
    assert rows(tmp_path) == uninterrupted[1]


def test_a_grain_iterator_goes_on_in_the_middle_of_an_epoch(trainer, batch_of, tmp_path):
    def iterator():
        whole = batch_of(0, rows=56)
        records = [{name: array[row] for name, array in whole.items()} for row in range(56)]
        dataset = grain.MapDataset.source(records).seed(1).shuffle().repeat().batch(16)
        return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))

    wanted = trainer(tmp_path / "whole", iterator())
    trainer(tmp_path / "parts", iterator(), steps=5)
    assert_equal(trainer(tmp_path / "parts", iterator()), wanted)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


@pytest.mark.parametrize("broken_at", [6, 8], ids=["between saves", "at a save"])
def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(trainer, batches, tmp_path, broken_at):
    with pytest.raises(NonFiniteError) as error:
        trainer(tmp_path, batches(broken_at=broken_at))
    assert f"step {broken_at}: loss nan" in str(error.value)
    assert f"record-{broken_at}-0, record-{broken_at}-1" in str(error.value)
    bad = np.load(tmp_path / f"bad_batch_{broken_at}.npz")
    np.testing.assert_array_equal(bad["tokens"], next_batch(batches, broken_at)["tokens"])
    assert bad["ids"][0] == f"record-{broken_at}-0"
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 4
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, broken_at))


def next_batch(batches, number):
    iterator = batches()
    iterator.set_state({"taken": number - 1})
    return next(iterator)


def test_without_ids_the_first_tokens_are_shown(trainer, batches, tmp_path):
    with pytest.raises(NonFiniteError, match="first rows begin with the tokens") as error:
        trainer(tmp_path, batches(broken_at=2, ids=False))
    assert str(next_batch(batches, 2)["tokens"][0, :8].tolist()) in str(error.value)


def test_the_last_step_is_checked_too(trainer, batches, tmp_path):
    with pytest.raises(NonFiniteError, match="step 10"):
        trainer(tmp_path, batches(broken_at=10))


def test_data_that_end_too_early_are_an_error(trainer, batches, tmp_path):
    with pytest.raises(ValueError, match="the data ended after 3 of 10 steps"):
        trainer(tmp_path, batches(end=3))


def test_rows_evaluations_and_checkpoints_come_when_asked(trainer, batches, tmp_path):
    seen = []

    def evaluate(params):
        seen.append(float(params["head"]["kernel"].sum()))
        return {"held_out/loss": len(seen)}

    trainer(tmp_path, batches(), log_every=3, evaluate=evaluate, evaluate_every=4, save_every=5)
    written = rows(tmp_path)
    assert [row["step"] for row in written if "loss" in row] == [3, 6, 9, 10]
    assert [(row["step"], row["held_out/loss"]) for row in written if "held_out/loss" in row] == [
        (4, 1),
        (8, 2),
        (10, 3),
    ]
    assert len(set(seen)) == 3
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()) == ["10", "5"]


def test_the_states_of_chosen_steps_are_kept_and_the_same_after_a_kill(trainer, batches, tmp_path):
    trainer(tmp_path / "whole", batches(), kept_steps=(3, 5, 6))
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "killed", batches(dies_at=6), kept_steps=(3, 5, 6))
    trainer(tmp_path / "killed", batches(), kept_steps=(3, 5, 6))
    for name in ("whole", "killed"):
        folder = tmp_path / name / "checkpoints"
        steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
        assert steps == [3, 5, 6, 8, 10]
    abstract = abstract_state(trainer(tmp_path / "whole", batches(dies_at=11))).params
    for step in (3, 5, 6):
        one, other = (restore_params(tmp_path / name / "checkpoints", abstract, step) for name in ("whole", "killed"))
        assert_equal(one, other)


def test_batches_are_placed_without_their_ids(trainer, batches, tmp_path):
    placed = []

    def place(arrays):
        placed.append(set(arrays))
        return jax.device_put(arrays)

    trainer(tmp_path, batches(), steps=2, shard_batch=place)
    assert placed == [{"tokens", "segment_ids", "loss_mask", "scale"}] * 2


@pytest.mark.parametrize("asked_at", [1, 4, 7, 10])
def test_a_training_that_is_asked_to_stop_is_saved_behind_the_step(trainer, batches, uninterrupted, tmp_path, asked_at):
    interruption = Interruption()
    taken = batches()

    def place(arrays):
        if taken.taken == asked_at:
            interruption.ask(signal.SIGTERM)
        return arrays

    with pytest.raises(InterruptedRunError, match=f"SIGTERM: training is saved after step {asked_at} of 10") as stop:
        trainer(tmp_path, taken, shard_batch=place, interruption=interruption)
    assert stop.value.exit_code == 143
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, asked_at + 1))
    assert_equal(trainer(tmp_path, batches()), uninterrupted[0])
    assert rows(tmp_path) == uninterrupted[1]


def test_with_a_damaged_newest_checkpoint_the_run_goes_on_from_the_one_before(
    trainer, batches, uninterrupted, tmp_path
):
    trainer(tmp_path, batches(), steps=9)
    for file in (tmp_path / "checkpoints" / "9" / "params" / "d").iterdir():
        file.write_bytes(b"")
    assert_equal(trainer(tmp_path, batches()), uninterrupted[0])
    assert rows(tmp_path) == uninterrupted[1]
    assert (tmp_path / "checkpoints" / "9.damaged").is_dir()


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import conftest, jax, numpy as np
from pathlib import Path
from llama2_jax.training.interruption import Interruption
from llama2_jax.training.loop import FitSettings, fit
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.schedules import cosine
from llama2_jax.training.session import open_session
from llama2_jax.training.state import create_state
from llama2_jax.training.step import build_train_step

folder, dies_at = Path(sys.argv[1]), int(sys.argv[2])
class Batches(conftest.Batches):
    def __next__(self):
        if self.taken + 1 == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__next__()

optimizer = make_optimizer(OptimizerConfig())
settings = FitSettings(steps=8, learning_rate=cosine(0.01, 8, 0, 1.0), save_every=2, log_every=1)
with open_session(folder, "training", Interruption(), 0.0) as session:
    state = fit(create_state(conftest.init(), optimizer), build_train_step(conftest.loss, conftest.count, optimizer),
                Batches(), session, settings)
np.savez(folder / "params.npz", *jax.tree.leaves(state))
"""


@pytest.mark.slow
def test_a_process_killed_at_once_loses_nothing(tmp_path):
    """SIGKILL between saves; the run resumes from what was left."""

    def run(folder, dies_at=0):
        folder.mkdir(exist_ok=True)
        script = SCRIPT.format(tests=str(Path(__file__).parent))
        root = str(Path(__file__).parents[2])
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
        return subprocess.run([sys.executable, "-c", script, str(folder), str(dies_at)], env=environment).returncode

    assert run(tmp_path / "whole") == 0
    assert run(tmp_path / "killed", dies_at=5) == -signal.SIGKILL
    assert run(tmp_path / "killed", dies_at=8) == -signal.SIGKILL
    assert run(tmp_path / "killed") == 0
    one, other = (np.load(tmp_path / name / "params.npz") for name in ("whole", "killed"))
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name])
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_mfu_is_the_share_of_the_peak_that_the_tokens_need():
    assert Throughput(flops_per_token=6e9, peak_flops=4e14).mfu(20_000.0) == pytest.approx(0.3)
    assert Throughput(flops_per_token=6e9, peak_flops=None).mfu(20_000.0) is None


def test_mfu_is_logged_where_the_peak_is_known(trainer, batches, tmp_path):
    trainer(tmp_path / "known", batches(), throughput=Throughput(flops_per_token=3.0, peak_flops=1e9))
    trainer(tmp_path / "unknown", batches(), throughput=Throughput(flops_per_token=3.0, peak_flops=None))
    first, *later = read_metrics(tmp_path / "known" / "metrics.jsonl")
    assert "mfu" not in first  # the first step compiles
    assert all(row["mfu"] == pytest.approx(row["tokens_per_second"] * 3e-9) for row in later)
    assert not any("mfu" in row for row in read_metrics(tmp_path / "unknown" / "metrics.jsonl"))
