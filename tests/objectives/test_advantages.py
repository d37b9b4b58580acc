"""GAE against a loop, and the advantages of groups against plain NumPy, in float64."""

import jax
import numpy as np
import pytest

from llama2_jax.objectives.advantages import generalized_advantages, group_advantages


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


def reference_of_groups(rewards, lengths, length, group_size, scale="group"):
    """GRPO's outcome supervision, group by group and token by token."""
    advantages = np.zeros((len(rewards), length))
    means = np.repeat([np.mean(rewards[i : i + group_size]) for i in range(0, len(rewards), group_size)], group_size)
    of_batch = np.sqrt(np.mean((np.asarray(rewards, np.float64) - means) ** 2))
    for first in range(0, len(rewards), group_size):
        group = [float(reward) for reward in rewards[first : first + group_size]]
        mean, deviation = np.mean(group), np.std(group) if scale == "group" else of_batch
        for index, reward in enumerate(group, start=first):
            for token in range(lengths[index]):
                advantages[index, token] = (reward - mean) / deviation
    return advantages


@pytest.mark.parametrize("scale", ["group", "batch"])
@pytest.mark.parametrize("group_size", [2, 3, 6])
def test_groups_equal_plain_numpy(group_size, scale):
    rng = np.random.default_rng(3)
    rewards = (5 * rng.normal(size=12) + 40).astype(np.float32)
    lengths = rng.integers(1, 9, 12)
    found = group_advantages(rewards, np.arange(9) < lengths[:, None], group_size, scale)
    # float32 rewards of size 40, and 1e-8 beside a variance of at least a hundredth.
    np.testing.assert_allclose(found, reference_of_groups(rewards, lengths, 9, group_size, scale), atol=1e-4)


def test_by_the_batch_s_deviation_a_group_of_nearly_equal_rewards_hardly_counts():
    rewards, mask = np.array([1.0, 1.01, -5.0, 5.0]), np.ones((4, 1))
    of_groups, of_batch = (np.asarray(group_advantages(rewards, mask, 2, scale))[:, 0] for scale in ("group", "batch"))
    np.testing.assert_allclose(of_groups, [-1, 1, -1, 1], atol=1e-3)
    np.testing.assert_allclose(of_batch, np.array([-0.005, 0.005, -5, 5]) / np.sqrt((25 + 0.005**2) / 2), atol=1e-5)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="scale='none': choose one of group, batch"):
        group_advantages(np.zeros(4), np.ones((4, 1)), 2, "none")


def test_groups_by_hand():
    # Of 1 and 3 the mean is 2 and the deviation 1; of 0, 0, 0 and 4 they are 1 and sqrt(3).
    found = group_advantages(np.array([1.0, 3.0]), np.array([[1, 1], [1, 0]]), 2)
    np.testing.assert_allclose(found, [[-1, -1], [1, 0]], atol=1e-6)
    found = group_advantages(np.array([0.0, 0.0, 0.0, 4.0]), np.ones((4, 1)), 4)[:, 0]
    np.testing.assert_allclose(found, np.array([-1, -1, -1, 3]) / np.sqrt(3), rtol=1e-6)


def test_a_group_of_equal_rewards_teaches_nothing_and_scale_and_shift_do_not_matter():
    mask = np.ones((6, 4))
    rewards = np.array([0.3, 0.3, 0.3, -1.0, 0.5, 2.0], np.float32)
    found = group_advantages(rewards, mask, 3)
    # Rounding of the mean, divided by 1e-4.
    np.testing.assert_allclose(found[:3], 0.0, atol=1e-3)
    np.testing.assert_allclose(group_advantages(7 * rewards - 3, mask, 3)[3:], found[3:], atol=1e-5)


@pytest.mark.parametrize("group_size", [0, 1, 4])
def test_what_makes_no_groups_is_refused(group_size):
    with pytest.raises(ValueError, match=f"6 answers cannot be divided into groups of {group_size}; wanted groups of"):
        group_advantages(np.zeros(6), np.ones((6, 2)), group_size)


def test_advantages_of_groups_are_constants():
    gradient = jax.grad(lambda rewards: group_advantages(rewards, np.ones((4, 2)), 2)[0, 0])(np.arange(4.0))
    np.testing.assert_array_equal(gradient, 0.0)
