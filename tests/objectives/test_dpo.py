"""The loss of DPO and its gradient beside float64 arithmetic, and its optimum where that is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.objectives.dpo import Pairs, dpo_loss, implicit_rewards, mean_dpo_loss, sum_over_answers

BETA = 0.3


def pairs(seed, count=20):
    """Log-probabilities of answers, as sums over some dozens of tokens have them."""
    rng = np.random.default_rng(seed)
    return Pairs(*(rng.normal(-40, 8, count).astype(np.float32) for _ in range(2)))


def numpy_loss(policy, reference, smoothing):
    """Equation 7 in float64, pair by pair, and its derivative by the policy's log-probabilities (section 4)."""
    chosen, rejected = (np.asarray(one, np.float64) - other for one, other in zip(policy, reference, strict=True))
    probability = 1 / (1 + np.exp(-BETA * (chosen - rejected)))
    loss = -(1 - smoothing) * np.log(probability) - smoothing * np.log(1 - probability)
    by_chosen = -BETA * ((1 - smoothing) * (1 - probability) - smoothing * probability)
    return loss, by_chosen, -by_chosen


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient_are_those_of_float64(smoothing):
    policy, reference = pairs(0), pairs(1)
    mask = (np.arange(20) % 3 > 0).astype(np.float32)

    def mean(policy):
        return mean_dpo_loss(policy, reference, mask, mask.sum(), BETA, smoothing)[0]

    found, gradient = jax.value_and_grad(mean)(policy)
    loss, by_chosen, by_rejected = numpy_loss(policy, reference, smoothing)
    # Float32: log-probabilities of size 40 have an error of 2e-6, and so have their differences.
    np.testing.assert_allclose(found, (loss * mask).sum() / mask.sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient.chosen, by_chosen * mask / mask.sum(), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(gradient.rejected, by_rejected * mask / mask.sum(), rtol=1e-5, atol=1e-8)


def test_a_policy_that_is_the_reference_has_the_loss_log_2_and_prefers_nothing():
    policy = pairs(0)
    loss, metrics = mean_dpo_loss(policy, policy, np.ones(20), np.float32(20), BETA)
    assert loss == pytest.approx(np.log(2), rel=1e-6)
    assert {name: float(value) for name, value in metrics.items()} == {
        "chosen_reward": 0, "rejected_reward": 0, "margin": 0, "accuracy": 0.5, "chosen_log_ratio": 0,
    }  # fmt: skip


def test_metrics_are_those_of_the_implicit_rewards():
    policy, reference = pairs(0), pairs(1)
    mask = np.arange(20) < 15
    _, metrics = mean_dpo_loss(policy, reference, mask, np.float32(15), BETA)
    chosen, rejected = (
        np.asarray(one, np.float64)[:15] - other[:15] for one, other in zip(policy, reference, strict=True)
    )
    assert metrics["chosen_log_ratio"] == pytest.approx(chosen.mean(), rel=1e-5)
    assert metrics["chosen_reward"] == pytest.approx(BETA * chosen.mean(), rel=1e-5)
    assert metrics["rejected_reward"] == pytest.approx(BETA * rejected.mean(), rel=1e-5)
    assert metrics["margin"] == pytest.approx(BETA * (chosen - rejected).mean(), rel=1e-5)
    assert 0 < metrics["accuracy"] < 1
    assert metrics["accuracy"] == pytest.approx((chosen > rejected).mean(), rel=1e-6)


def test_parts_of_a_batch_add_up():
    policy, reference, count = pairs(0), pairs(1), np.float32(20)
    whole = mean_dpo_loss(policy, reference, np.ones(20), count, BETA)
    parts = [
        mean_dpo_loss(*(Pairs(*(x[part] for x in one)) for one in (policy, reference)), np.ones(10), count, BETA)
        for part in (slice(10), slice(10, 20))
    ]
    added = jax.tree.map(jnp.add, *parts)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6), added, whole)


def test_large_margins_do_not_overflow():
    large = Pairs(np.array([1e4, -1e4], np.float32), np.array([-1e4, 1e4], np.float32))
    np.testing.assert_array_equal(dpo_loss(large), [0.0, 2e4])
    assert np.isfinite(jax.grad(lambda rewards: dpo_loss(rewards, 0.1).sum())(large).chosen).all()


def test_sums_are_over_the_tokens_of_each_answer():
    """Two answers share a row; one is padding, without tokens."""
    following = np.random.default_rng(0).normal(size=(2, 9)).astype(np.float32)
    row, last, size = np.array([0, 0, 1, 0]), np.array([3, 8, 5, 0]), np.array([2, 4, 5, 0])
    found = sum_over_answers(following, row, last, size)
    wanted = [following[0, 1:3].sum(), following[0, 4:8].sum(), following[1, :5].sum(), 0.0]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    gradient = jax.grad(lambda x: (sum_over_answers(x, row, last, size) * np.array([1.0, 2, 3, 4])).sum())(following)
    np.testing.assert_array_equal(gradient, [[0, 1, 1, 0, 2, 2, 2, 2, 0], [3, 3, 3, 3, 3, 0, 0, 0, 0]])


def test_on_a_bandit_the_optimum_is_the_closed_form():
    """Answers preferred as their rewards have it (Bradley and Terry): policy = reference exp(reward / beta) / Z."""
    reward = np.array([0.0, 0.5, 1.0, -0.7, 0.2])
    reference = np.log(np.array([0.1, 0.4, 0.2, 0.25, 0.05]))
    chosen, rejected = (one.ravel() for one in np.meshgrid(np.arange(5), np.arange(5)))
    preferred = 1 / (1 + np.exp(-(reward[chosen] - reward[rejected])))  # how often, in the limit of all comparisons

    def loss(logits):
        policy = jax.nn.log_softmax(logits)
        both = [Pairs(one[chosen], one[rejected]) for one in (policy, jnp.asarray(reference, jnp.float32))]
        return jnp.sum(preferred * dpo_loss(implicit_rewards(*both, BETA)))

    @jax.jit
    def descend(logits):
        return jax.lax.fori_loop(0, 2000, lambda _, one: one - 2.0 * jax.grad(loss)(one), logits)

    found = jax.nn.log_softmax(descend(jnp.asarray(reference, jnp.float32)))
    wanted = reference + reward / BETA
    wanted -= np.log(np.exp(wanted).sum())
    # Gradient descent in float32, to where the gradient is lost in rounding.
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert np.abs(wanted - reference).max() > 1
