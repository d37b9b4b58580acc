"""PPO's steps: 1 microbatch of 8 rows is 8 microbatches of 1 row, for the policy and the critic."""

import functools

import jax
import numpy as np
import pytest

from llama2_jax.models.llama import init_language_model, init_scalar_model
from llama2_jax.pipeline.model_training import shard_batch
from llama2_jax.pipeline.ppo_steps import ppo_critic_step, ppo_policy_step
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from tests.pipeline.test_rollouts import experience
from tests.smallest import smallest_model

MODEL = smallest_model(max_length=16)
OPTIMIZER = OptimizerConfig(clip=1e9)
STEPS = {
    "policy": (init_language_model, functools.partial(ppo_policy_step, MODEL, OPTIMIZER, 0.2, 1.0)),
    "critic": (init_scalar_model, functools.partial(ppo_critic_step, MODEL, OPTIMIZER, 0.2)),
}


def three_steps(which, accumulation):
    """The metrics of three steps and the parameters after them, on answers of 1 to 5 tokens: no two rows are alike."""
    init, step_of = STEPS[which]
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    batch = experience(count=14).minibatch(range(14), 16, row_multiple=8)
    assert len(batch["mask"]) == 8
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
