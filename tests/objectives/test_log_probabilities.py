"""log_probabilities against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.objectives.log_probabilities import log_probabilities

# Rounding of a float32 logsumexp over a few dozen numbers of size 10.
ROUNDING = 5e-6


def reference(logits, temperature):
    scaled = np.asarray(logits, np.float64) / temperature
    scaled -= scaled.max(-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))


@pytest.fixture
def rollout():
    rng = np.random.default_rng(0)
    return rng.normal(0, 5, (3, 7, 41)).astype(np.float32), rng.integers(0, 41, (3, 7)).astype(np.int32)


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.3])
def test_is_log_softmax_of_logits_over_temperature(rollout, temperature):
    logits, targets = rollout
    wanted = np.take_along_axis(reference(logits, temperature), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(log_probabilities(logits, targets, temperature), wanted, atol=ROUNDING)


def test_temperature_may_differ_by_row(rollout):
    logits, targets = rollout
    temperatures = jnp.array([[0.5], [1.0], [2.0]])
    together = log_probabilities(logits, targets, temperatures)
    for row, temperature in enumerate([0.5, 1.0, 2.0]):
        np.testing.assert_array_equal(together[row], log_probabilities(logits[row], targets[row], temperature))


def test_gradient_is_one_hot_minus_softmax_over_temperature(rollout):
    logits, targets = rollout
    weights = np.random.default_rng(1).normal(size=targets.shape).astype(np.float32)
    found = jax.grad(lambda x: jnp.sum(weights * log_probabilities(x, targets, 0.7)))(logits)
    probabilities = np.exp(reference(logits, 0.7))
    wanted = weights[..., None] * (np.eye(41)[targets] - probabilities) / 0.7
    np.testing.assert_allclose(found, wanted, atol=ROUNDING)


def test_is_float32_for_bfloat16_logits(rollout):
    logits, targets = rollout
    rounded = jnp.asarray(logits, jnp.bfloat16)
    found = log_probabilities(rounded, targets, 1.0)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, log_probabilities(rounded.astype(jnp.float32), targets, 1.0))


def test_large_logits_do_not_overflow():
    logits = jnp.array([[1e4, 0.0, -1e4]])
    np.testing.assert_array_equal(log_probabilities(logits, jnp.array([0]), 0.1), [0.0])
    np.testing.assert_array_equal(log_probabilities(logits, jnp.array([1]), 1.0), [-1e4])


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(rollout, temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        log_probabilities(*rollout, temperature)
