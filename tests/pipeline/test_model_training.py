"""A config's schedule and optimizer, handed to the one step and the one loop."""

import itertools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.models.llama import init_language_model
from llama2_jax.pipeline.model_training import (
    fit_language_model,
    language_model_loss,
    language_model_step,
    learning_rate,
)
from llama2_jax.sharding.batches import shard_batch, shard_rows
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.training.metrics import read_metrics
from llama2_jax.training.model_folder import load_model
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from tests.smallest import smallest_model, smallest_runtime


def settings(**changes):
    return ConfigDict({
        "learning_rate": 1.0,
        "warmup_steps": 0,
        "warmup_fraction": 0.0,
        "final_learning_rate_fraction": 0.1,
        "optimizer": {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0},
        "accumulation": 1,
        "length": 16,
        "save_every": 2,
        "log_every": 1,
        **changes,
    })  # fmt: skip


def warmup_of(schedule, steps):
    """The first step at the peak, counted from 1."""
    return next(step + 1 for step in range(steps) if schedule(step) == 1.0)


@pytest.mark.parametrize(("steps", "warmup"), [(20, 5), (166, 5), (167, 6), (200, 6), (1000, 30), (1100, 33)])
def test_reward_models_warm_up_for_three_percent_and_at_least_five_steps(steps, warmup):
    schedule = learning_rate(settings(warmup_steps=5, warmup_fraction=0.03), steps)
    assert warmup_of(schedule, steps) == warmup
    assert schedule(0) == pytest.approx(1 / warmup)


def test_a_warm_up_longer_than_the_training_is_as_long_as_the_training():
    schedule = learning_rate(settings(warmup_steps=5, warmup_fraction=0.03), steps=3)
    assert [schedule(step) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_a_cosine_ends_at_its_fraction_of_the_peak():
    schedule = learning_rate(settings(warmup_steps=2), steps=11)
    rates = [schedule(step) for step in range(11)]
    assert rates[0] == 0.5 and rates[1] == rates[2] == 1.0
    assert rates[6] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[2:]))


def test_the_rate_of_ppo_is_constant():
    schedule = learning_rate(settings(learning_rate=1e-6, final_learning_rate_fraction=1.0), steps=400)
    # A cosine of no height: what rounding leaves of it.
    assert [schedule(iteration) for iteration in range(400)] == pytest.approx([1e-6] * 400, rel=1e-12)


def test_stages_of_the_same_shapes_share_one_step():
    mesh = make_mesh(data=1, fsdp=1, devices=jax.devices()[:1])
    arguments = (smallest_model(), OptimizerConfig(), 1, mesh)
    again = (smallest_model(), OptimizerConfig(), 1, make_mesh(data=1, fsdp=1, devices=jax.devices()[:1]))
    assert language_model_step(*arguments) is language_model_step(*again)


class Batches:
    """Rows of letters in alphabetical order; breaks off where told to."""

    def __init__(self, breaks_off_at=None):
        self.taken, self.breaks_off_at = 0, breaks_off_at

    def __next__(self):
        if self.taken == self.breaks_off_at:
            raise KeyboardInterrupt
        self.taken += 1
        tokens = (97 + (np.arange(16) + np.arange(4)[:, None] + self.taken) % 26).astype(np.int32)
        ones = np.ones_like(tokens)
        return {
            "tokens": tokens,
            "positions": ones * np.arange(16, dtype=np.int32),
            "segment_ids": ones,
            "loss_mask": ones,
        }

    def get_state(self):
        return {"taken": self.taken}

    def set_state(self, state):
        self.taken = state["taken"]


def fit(folder, batches, steps=6):
    runtime = smallest_runtime(folder)
    start = init_language_model(runtime.model, jax.random.key(0))
    start = jax.device_put(start, jax.NamedSharding(runtime.mesh, jax.P()))
    rates = settings(learning_rate=1e-2, warmup_steps=2)
    return runtime, jax.device_get(fit_language_model(rates, start, batches, steps, runtime))


def test_three_rows_train_eight_devices_as_they_train_one():
    """The default batch of tiny's fine-tuning."""
    model, optimizer = smallest_model(), OptimizerConfig()
    batch = {name: array[:3] for name, array in next(Batches()).items()}
    losses, trained = [], []
    for count in (1, 8):
        mesh = make_mesh(data=-1, fsdp=1, devices=jax.devices()[:count])
        params = jax.device_put(init_language_model(model, jax.random.key(0)), jax.NamedSharding(mesh, jax.P()))
        losses.append(float(language_model_loss(model, mesh)(params, shard_rows(batch, mesh))))
        state = create_state(params, make_optimizer(optimizer))
        step = language_model_step(model, optimizer, 1, mesh)
        trained.append(jax.device_get(step(state, shard_rows(batch, mesh), np.float32(1e-2))[0].params))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    # Sums over devices are made in another order, and Adam's first step divides small gradients by themselves.
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-5), *trained)


@pytest.mark.slow
def test_a_fitted_model_is_better_and_lies_in_its_folder(tmp_path):
    runtime, params = fit(tmp_path, Batches(), steps=12)
    rows = list(read_metrics(runtime.folder / "metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    loaded = load_model(runtime.folder)
    assert (loaded.config, loaded.head) == (runtime.model, "language")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    batch = shard_batch(next(Batches()), runtime.mesh)
    untrained = init_language_model(runtime.model, jax.random.key(0))
    loss = language_model_loss(runtime.model, runtime.mesh)
    assert loss(loaded.params, batch) < loss(untrained, batch) - 0.5


@pytest.mark.slow
def test_a_fit_that_was_cut_off_goes_on_to_the_same_bits(tmp_path):
    _, expected = fit(tmp_path / "whole", Batches())
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", Batches(breaks_off_at=5))
    runtime, params = fit(tmp_path / "cut", Batches())
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert [row["step"] for row in read_metrics(runtime.folder / "metrics.jsonl")] == list(range(1, 7))
