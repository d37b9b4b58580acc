"""The running average of weights, against plain NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.training.averaging import start_average, update_average
from llama2_jax.training.state import TrainState


def state(rng, step=0):
    params = {"matrix": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32), "norm": jnp.asarray(rng.normal(size=3))}
    return TrainState(jnp.asarray(step, jnp.int32), params, {"moments": params})


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.992])
def test_it_is_the_sum_of_all_weights_so_far_with_falling_shares(decay):
    rng = np.random.default_rng(0)
    states = [state(rng, step) for step in range(6)]
    average = start_average(states[0])
    for later in states[1:]:
        average = update_average(average, later.params, decay=decay)
    # decay^5 of the start, and (1 - decay) decay^(5 - n) of the weights after step n.
    shares = [decay**5, *((1 - decay) * decay ** (5 - step) for step in range(1, 6))]
    assert sum(shares) == pytest.approx(1)
    for name in ("matrix", "norm"):
        wanted = sum(
            share * np.asarray(one.params[name], np.float64) for share, one in zip(shares, states, strict=True)
        )
        np.testing.assert_allclose(average.params[name], wanted, atol=1e-6)
    assert int(average.step) == 5


def test_weights_that_stay_are_their_own_average_to_the_bit():
    start = state(np.random.default_rng(1))
    average = update_average(start_average(start), start.params, decay=0.9)
    jax.tree.map(np.testing.assert_array_equal, average.params, start.params)


def test_neither_the_weights_nor_their_state_are_used_up():
    start = state(np.random.default_rng(2))
    update_average(start_average(start), start.params, decay=0.9)
    assert not [leaf for leaf in jax.tree.leaves(start) if leaf.is_deleted()]
