"""The reward of PPO: piecewise combination, whitening, reward per token."""

import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.objectives.rewards import (
    apply_missing_eos_penalty,
    combine,
    per_token_rewards,
    whiten,
    whiten_by_tag,
)


def logit(p):
    return np.log(p / (1 - p)).astype(np.float32)


def test_combine_takes_safety_for_tagged_prompts_and_below_the_threshold():
    safety = logit(np.array([0.14, 0.16, 0.9, 0.9]))
    helpfulness = logit(np.array([0.8, 0.7, 0.6, 0.5]))
    found = combine(safety, helpfulness, np.array([False, False, True, False]))
    np.testing.assert_array_equal(found, [safety[0], helpfulness[1], safety[2], helpfulness[3]])


def test_combine_keeps_logits_that_a_sigmoid_would_saturate():
    found = combine(jnp.array([-80.0, 50.0]), jnp.array([0.0, 90.0]), jnp.array([False, False]))
    np.testing.assert_array_equal(found, [-80.0, 90.0])


def test_threshold_is_a_choice():
    at = logit(np.array([0.3]))
    assert combine(at, jnp.array([5.0]), jnp.array([False]), threshold=0.25)[0] == 5.0
    assert combine(at, jnp.array([5.0]), jnp.array([False]), threshold=0.35)[0] == at[0]


def test_whitened_by_tag_by_hand():
    found = whiten_by_tag(jnp.array([5.0, 1.0, 9.0, 3.0, 2.0]), jnp.array([1, 0, 1, 0, 0]))
    # Tagged are 5 and 9, of variance 4; the variance of 1, 3 and 2 is 2/3.
    np.testing.assert_allclose(found, [-1.0, -(1.5**0.5), 1.0, 1.5**0.5, 0.0], atol=1e-6)


@pytest.mark.parametrize("tag", [True, False])
def test_prompts_of_one_kind_are_whitened_as_a_whole(tag):
    score = jnp.array([4.0, 8.0, 5.0])
    np.testing.assert_allclose(whiten_by_tag(score, jnp.full(3, tag)), whiten(score, jnp.ones(3)), atol=1e-6)


def test_the_only_prompt_of_its_kind_tells_nothing():
    assert whiten_by_tag(jnp.array([9.0, 1.0, 2.0]), jnp.array([1, 0, 0]))[0] == 0


def test_the_zero_and_the_unit_of_a_reward_model_are_no_matter():
    """The loss of a reward model is the same whatever it adds to all of its scores (equation 1)."""
    draw = np.random.default_rng(0)
    score, tagged = draw.normal(size=64).astype(np.float32), draw.random(64) < 0.3
    moved = np.where(tagged, 3.0 * score + 6.0, 0.5 * score - 2.5).astype(np.float32)
    np.testing.assert_allclose(whiten_by_tag(moved, tagged), whiten_by_tag(score, tagged), atol=1e-4)


def test_whiten_by_hand():
    # Of 1, 3 the mean is 2 and the biased variance 1 (the unbiased one is 2).
    found = whiten(jnp.array([1.0, 3.0, 100.0]), jnp.array([1, 1, 0]))
    np.testing.assert_allclose(found, [-1.0, 1.0, 0.0], atol=1e-6)


def test_whiten_equals_float64_over_the_whole_batch():
    x = np.random.default_rng(0).normal(3, 7, (16, 32)).astype(np.float32)
    mask = np.random.default_rng(1).random((16, 32)) < 0.6
    inside = x[mask].astype(np.float64)
    wanted = np.where(mask, (x - inside.mean()) / np.sqrt(inside.var() + 1e-8), 0.0)
    np.testing.assert_allclose(whiten(x, mask), wanted, atol=1e-5)  # float32 sums of 300 numbers


def test_whitening_equal_scores_gives_zeros():
    np.testing.assert_array_equal(whiten(jnp.full(4, 2.5), jnp.ones(4)), np.zeros(4))


def test_rewards_by_hand():
    policy = jnp.array([[-1.0, -2.0, -3.0], [-1.0, 9.0, 9.0]])
    reference = jnp.array([[-2.0, -2.0, -1.0], [-0.5, -9.0, -9.0]])
    mask = jnp.array([[1, 1, 1], [1, 0, 0]])
    found = per_token_rewards(jnp.array([1.5, -0.7]), policy, reference, mask, jnp.array([2, 0]), 0.1)
    # -0.1 * (1, 0, -2) and the score at the last; -0.1 * -0.5 and the score; nothing beyond the end.
    np.testing.assert_allclose(found, [[-0.1, 0.0, 1.7], [-0.65, 0.0, 0.0]], atol=1e-6)


def test_rewards_of_an_answer_add_up_to_score_less_kl():
    rng = np.random.default_rng(0)
    policy, reference = rng.normal(-2, 1, (2, 4, 9)).astype(np.float32)
    lengths = np.array([9, 4, 1, 0])
    mask = np.arange(9) < lengths[:, None]
    score = rng.normal(size=4).astype(np.float32)
    found = np.asarray(per_token_rewards(score, policy, reference, mask, lengths - 1, 0.05))
    kl = np.where(mask, policy - reference, 0).sum(1)
    wanted = np.where(lengths > 0, score - 0.05 * kl, 0.0)
    np.testing.assert_allclose(found.sum(1), wanted, atol=1e-5)
    np.testing.assert_array_equal(found[~mask], 0.0)


def test_fractions_of_a_score_survive_integer_scores_and_masks():
    # A known bug elsewhere: rewards made with the integer type of the tokens, 0.73 truncated to 0.
    found = per_token_rewards(
        np.array([0.73], np.float32), np.zeros((1, 2)), np.zeros((1, 2)), np.ones((1, 2), np.int32), np.array([1]), 0.1
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [[0.0, 0.73]], rtol=1e-6)


def test_unfinished_answers_are_penalised():
    found = apply_missing_eos_penalty(jnp.array([0.5, 0.5]), jnp.array([True, False]), 1.0)
    np.testing.assert_allclose(found, [0.5, -0.5])
