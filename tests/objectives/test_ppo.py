"""The losses of PPO by hand, by property, and against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.objectives.ppo import kl_k1, kl_k3, kl_penalty, policy_loss, value_loss


def test_policy_loss_by_hand():
    ratio = np.array([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = np.array([1.0, -1.0, 1.0, -1.0, 2.0])
    # min(ratio A, clip(ratio, 0.8, 1.2) A): 1.2, -1.5, 0.5, -0.8, 2.2
    loss, metrics = policy_loss(np.log(ratio), np.zeros(5), advantages, np.ones(5), 0.2, 5.0)
    np.testing.assert_allclose(loss, -(1.2 - 1.5 + 0.5 - 0.8 + 2.2) / 5, rtol=1e-6)
    np.testing.assert_allclose(metrics["clip_fraction"], 0.8, rtol=1e-6)
    np.testing.assert_allclose(metrics["ratio_mean"], ratio.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["log_ratio_abs"], np.abs(np.log(ratio)).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["approximate_kl"], (ratio - 1 - np.log(ratio)).mean(), rtol=1e-5)


def test_at_the_first_minibatch_the_ratio_is_one():
    logp = jnp.array([-3.0, -0.1, -20.0])
    advantages = jnp.array([1.0, 2.0, -6.0])
    loss, metrics = policy_loss(logp, logp, advantages, jnp.ones(3), 0.2, 3.0)
    assert (metrics["ratio_mean"], metrics["clip_fraction"], metrics["approximate_kl"]) == (1.0, 0.0, 0.0)
    assert loss == 1.0
    # The gradient is that of plain policy gradient, -A / n.
    gradient = jax.grad(lambda x: policy_loss(x, logp, advantages, jnp.ones(3), 0.2, 3.0)[0])(logp)
    np.testing.assert_allclose(gradient, -advantages / 3)


def test_a_clipped_token_has_no_gradient():
    old = jnp.zeros(2)
    gradient = jax.grad(lambda x: policy_loss(x, old, jnp.array([1.0, -1.0]), jnp.ones(2), 0.2, 1.0)[0])
    np.testing.assert_array_equal(gradient(jnp.array([0.5, -0.5])), [0.0, 0.0])


def test_the_penalty_of_the_kl_by_hand_and_its_gradient():
    """q/p - 1 - log(q/p): 0 and without a gradient where both agree; it pulls the policy towards the reference."""
    ratio = np.array([1.0, 2.0, 0.5, 7.0])  # reference over policy
    mask, reference = np.array([1, 1, 1, 0]), np.log(np.array([0.3, 0.4, 0.1, 0.7]))
    logp = reference - np.log(ratio)
    wanted = (0 + (2 - 1 - np.log(2)) + (0.5 - 1 + np.log(2))) / 3
    loss, gradient = jax.value_and_grad(lambda x: kl_penalty(x, reference, mask, 3.0))(jnp.asarray(logp))
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    # Of (1 - q/p) / n at each token: up where the reference is likelier.
    np.testing.assert_allclose(gradient, [0, (1 - 2) / 3, (1 - 0.5) / 3, 0], atol=1e-6)


def test_value_loss_by_hand():
    values, old, returns = np.array([1.0, 1.0, 0.1]), np.zeros(3), np.array([0.0, 2.0, 1.0])
    # plain (1, 1, .81); clipped at 0.2: (.04, 3.24, .81)
    loss, metrics = value_loss(values, old, returns, np.ones(3), 0.2, 3.0)
    np.testing.assert_allclose(loss, 0.5 * (1 + 3.24 + 0.81) / 3, rtol=1e-6)
    np.testing.assert_allclose(metrics["value_clip_fraction"], 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e30])
def test_entries_outside_the_mask_are_ignored(bad):
    mask = jnp.array([1, 0])
    x = jnp.array([-0.3, bad])
    fine = jnp.array([-0.2, -0.1])

    def total(x, y, z):
        return policy_loss(x, y, z, mask, 0.2, 1.0)[0] + value_loss(x, y, z, mask, 0.2, 1.0)[0]

    value, gradient = jax.value_and_grad(total)(x, jnp.array([-0.2, bad]), jnp.array([1.0, bad]))
    wanted, wanted_gradient = jax.value_and_grad(total)(jnp.array([-0.3, 0.0]), fine, jnp.array([1.0, 0.0]))
    assert value == wanted
    np.testing.assert_array_equal(gradient, wanted_gradient)


def test_parts_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    logp, old, advantages = rng.normal(0, 0.3, (3, 4, 6)).astype(np.float32)
    mask = rng.random((4, 6)) < 0.7
    count = mask.sum()
    for loss in (policy_loss, value_loss):
        whole, metrics = loss(logp, old, advantages, mask, 0.2, count)
        parts = [
            loss(logp[rows], old[rows], advantages[rows], mask[rows], 0.2, count) for rows in (slice(0, 1), slice(1, 4))
        ]
        np.testing.assert_allclose(sum(part[0] for part in parts), whole, rtol=1e-5, atol=1e-7)
        for name, value in metrics.items():
            np.testing.assert_allclose(sum(part[1][name] for part in parts), value, rtol=1e-5, atol=1e-7)


def test_both_estimates_have_the_kl_as_their_mean():
    rng = np.random.default_rng(0)
    log_p, log_q = (x - np.log(np.exp(x).sum()) for x in rng.normal(size=(2, 8)))
    kl = (np.exp(log_p) * (log_p - log_q)).sum()
    # The exact mean over the distribution; float32 rounding.
    np.testing.assert_allclose((np.exp(log_p) * np.asarray(kl_k1(log_p, log_q))).sum(), kl, rtol=1e-5)
    np.testing.assert_allclose((np.exp(log_p) * np.asarray(kl_k3(log_p, log_q))).sum(), kl, rtol=1e-5)
    assert (np.asarray(kl_k3(log_p, log_q)) >= 0).all()
