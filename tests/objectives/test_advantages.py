"""GAE against a loop in float64."""

import jax
import numpy as np
import pytest

from llama2_jax.objectives.advantages import generalized_advantages


def reference(rewards, values, lengths, gamma, lambda_):
    """A loop over each answer's own tokens."""
    advantages = np.zeros(rewards.shape)
    for row, length in enumerate(lengths):
        later = 0.0
        for t in reversed(range(length)):
            following = float(values[row, t + 1]) if t + 1 < length else 0.0
            later = float(rewards[row, t]) + gamma * following - float(values[row, t]) + gamma * lambda_ * later
            advantages[row, t] = later
    return advantages


@pytest.mark.parametrize(("gamma", "lambda_"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (1.0, 0.0), (0.0, 0.5)])
def test_equals_a_loop_over_each_answer(gamma, lambda_):
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 6, 33)).astype(np.float32)
    lengths = np.array([33, 32, 17, 2, 1, 0])
    mask = np.arange(33) < lengths[:, None]
    advantages, returns = generalized_advantages(rewards, values, mask, gamma, lambda_)
    wanted = reference(rewards, values, lengths, gamma, lambda_)
    # float32 sums of up to 33 numbers of size 1
    np.testing.assert_allclose(advantages, wanted, atol=2e-5)
    np.testing.assert_allclose(returns, np.where(mask, wanted + values, 0.0), atol=2e-5)


def test_by_hand():
    # deltas: 0 + 0.5 * 2 - 1 = 0; 1 + 0 - 2 = -1. Then A_1 = -1, A_0 = 0 + 0.5 * 0.5 * -1.
    advantages, returns = generalized_advantages(
        np.array([[0.0, 1.0, 7.0]]), np.array([[1.0, 2.0, 7.0]]), np.array([[1, 1, 0]]), 0.5, 0.5
    )
    np.testing.assert_allclose(advantages, [[-0.25, -1.0, 0.0]])
    np.testing.assert_allclose(returns, [[0.75, 1.0, 0.0]])


def test_with_lambda_and_gamma_1_returns_are_the_sums_of_future_rewards():
    rewards, values = np.random.default_rng(1).normal(size=(2, 2, 9)).astype(np.float32)
    _, returns = generalized_advantages(rewards, values, np.ones((2, 9)), 1.0, 1.0)
    np.testing.assert_allclose(returns, np.cumsum(rewards[:, ::-1], 1)[:, ::-1], atol=1e-5)


def test_advantages_do_not_depend_on_the_answers_position_in_the_row():
    rewards, values = np.random.default_rng(2).normal(size=(2, 1, 9)).astype(np.float32)
    left = generalized_advantages(rewards, values, np.arange(9)[None] < 5, 0.9, 0.9)[0]
    shifted = generalized_advantages(
        np.roll(rewards, 3, 1), np.roll(values, 3, 1), (np.arange(9)[None] >= 3) & (np.arange(9)[None] < 8), 0.9, 0.9
    )[0]
    np.testing.assert_allclose(left[0, :5], shifted[0, 3:8], rtol=1e-6)


def test_entries_outside_the_mask_are_ignored():
    rewards, values = np.ones((2, 1, 4), np.float32)
    mask = np.array([[1, 1, 0, 0]])
    clean = generalized_advantages(rewards, values, mask, 1.0, 0.9)
    rewards[:, 2:], values[:, 2:] = np.nan, np.inf
    for found, wanted in zip(generalized_advantages(rewards, values, mask, 1.0, 0.9), clean, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_they_are_constants():
    rewards, values = np.ones((2, 1, 4), np.float32)
    gradient = jax.grad(lambda v: generalized_advantages(rewards, v, np.ones((1, 4)), 1.0, 0.9)[1].sum())(values)
    np.testing.assert_array_equal(gradient, 0.0)
