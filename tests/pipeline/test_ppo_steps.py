"""PPO's steps: microbatches of rows add up to the whole, and a config adds to the policy's loss what it says."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llama2_jax.models.llama import init_language_model, init_scalar_model
from llama2_jax.pipeline.model_training import language_model_step
from llama2_jax.pipeline.ppo_steps import PolicyObjective, ppo_critic_step, ppo_policy_step
from llama2_jax.pipeline.pretraining_mix import with_text
from llama2_jax.sharding.batches import shard_batch
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from tests.pipeline.test_rollouts import experience
from tests.smallest import smallest_model

MODEL = smallest_model(max_length=16)
OPTIMIZER = OptimizerConfig(clip=1e9)
STEPS = {
    "policy": (init_language_model, functools.partial(ppo_policy_step, MODEL, OPTIMIZER, PolicyObjective(0.2, 1.0))),
    "critic": (init_scalar_model, functools.partial(ppo_critic_step, MODEL, OPTIMIZER, 0.2)),
    "policy, in groups": (
        init_language_model, functools.partial(ppo_policy_step, MODEL, OPTIMIZER, PolicyObjective(0.2, 1.0, 0.3)),
    ),
    "policy, with text": (
        init_language_model, functools.partial(ppo_policy_step, MODEL, OPTIMIZER, PolicyObjective(0.2, 0.7, 0.0, 3.0)),
    ),
}  # fmt: skip


def minibatch():
    """Packed answers with all that a policy's or a critic's step may read of them."""
    rollouts = experience(count=14)
    reference = np.random.default_rng(1).normal(size=rollouts.values.shape).astype(np.float32)
    return dataclasses.replace(rollouts, reference=reference).minibatch(range(14), 16, row_multiple=8)


def text():
    """Three rows of text; the last one is of two documents and ends in padding."""
    rng = np.random.default_rng(2)
    segments = np.ones((3, 16), np.int32)
    segments[2] = [1] * 6 + [2] * 7 + [0] * 3
    positions = np.tile(np.arange(16, dtype=np.int32), (3, 1))
    positions[2, 6:] = [*range(7), 0, 0, 0]
    tokens = rng.integers(3, 128, (3, 16)).astype(np.int32) * (segments > 0)
    return {
        "tokens": tokens, "segment_ids": segments, "positions": positions,
        "loss_mask": (segments > 0).astype(np.int32),
    }  # fmt: skip


def gradient(step, batch, params):
    """The metrics and the gradient of a step without clipping: Adam's first moment is a tenth of it."""
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    state = create_state(
        jax.device_put(jax.tree.map(jnp.copy, params), jax.NamedSharding(mesh, jax.P())), make_optimizer(OPTIMIZER)
    )
    state, metrics = step(1, mesh)(state, shard_batch(batch, mesh), np.float32(1e-3))
    moments = next(part for part in state.opt_state if isinstance(part, optax.ScaleByAdamState))
    return jax.device_get(metrics), jax.tree.map(lambda mu: np.asarray(mu) / (1 - OPTIMIZER.b1), moments.mu)


def policy_step(*objective):
    return functools.partial(ppo_policy_step, MODEL, OPTIMIZER, PolicyObjective(*objective))


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [1.0, 27.8])
def test_text_adds_gamma_times_the_gradient_of_its_mean_loss(gamma):
    """Whatever the policy's temperature, and however many rows of each there are."""
    params = jax.tree.map(lambda leaf: 4 * leaf, init_language_model(MODEL, jax.random.key(0)))
    answers, words = minibatch(), text()
    ppo_metrics, ppo = gradient(policy_step(0.2, 0.7), answers, params)
    text_metrics, language = gradient(functools.partial(language_model_step, MODEL, OPTIMIZER), words, params)
    metrics, both = gradient(policy_step(0.2, 0.7, 0.0, gamma), with_text(answers, words, 8), params)
    # float32 sums in another order.
    np.testing.assert_allclose(metrics["pretraining_loss"], text_metrics["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], ppo_metrics["loss"] + gamma * text_metrics["loss"], rtol=1e-5)
    for name in ("clip_fraction", "ratio_mean", "log_ratio_abs"):
        np.testing.assert_allclose(metrics[name], ppo_metrics[name], rtol=1e-5)
    for one, other, found in zip(*map(jax.tree.leaves, (ppo, language, both)), strict=True):
        wanted = one + gamma * other
        np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.slow
def test_in_groups_the_kl_to_the_reference_is_added_to_the_loss():
    params = jax.tree.map(lambda leaf: 4 * leaf, init_language_model(MODEL, jax.random.key(0)))
    plain, _ = gradient(policy_step(0.2, 1.0), minibatch(), params)
    metrics, _ = gradient(policy_step(0.2, 1.0, 0.3), minibatch(), params)
    assert metrics["reference_kl"] > 0.01 and "reference_kl" not in plain
    np.testing.assert_allclose(metrics["loss"], plain["loss"] + 0.3 * metrics["reference_kl"], rtol=1e-5)


def three_steps(which, accumulation):
    """The metrics of three steps and the parameters after them, on answers of 1 to 5 tokens: no two rows are alike."""
    init, step_of = STEPS[which]
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    batch = minibatch()
    assert len(batch["mask"]) == 8
    if "text" in which:
        batch = with_text(batch, text(), 8)
    tokens = batch["mask"].sum(axis=1)
    assert len(set(tokens)) > 2, "a mean over rows would not be the mean over tokens"
    params = jax.tree.map(lambda leaf: 4 * leaf, init(MODEL, jax.random.key(0)))
    state = create_state(jax.device_put(params, jax.NamedSharding(mesh, jax.P())), make_optimizer(OPTIMIZER))
    rows = []
    for _ in range(3):
        state, metrics = step_of(accumulation, mesh)(state, shard_batch(batch, mesh), np.float32(1e-3))
        rows.append(jax.device_get(metrics))
    return rows, jax.device_get(state.params)


@pytest.mark.slow
@pytest.mark.parametrize("which", STEPS)
def test_microbatches_of_rows_add_up_to_the_whole(which):
    (whole, params), (parts, params_of_parts) = three_steps(which, 1), three_steps(which, 8)
    for one, other in zip(whole, parts, strict=True):
        assert one["grad_norm"] > 1e-3
        for name, value in one.items():
            # float32 sums in another order.
            np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    for one, other in zip(*map(jax.tree.leaves, (params, params_of_parts)), strict=True):
        # Adam divides by the gradient's size: where that is tiny, rounding moves a step of 1e-3.
        np.testing.assert_allclose(other, one, atol=1e-4)
