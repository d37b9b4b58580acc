"""One fixed rollout through the whole of PPO's mathematics, against plain loops in float64.

Three answers of 8, 5 and 1 tokens over a vocabulary of 11: log-probabilities, KL, rewards, whitening, advantages,
both losses, and the losses' gradients with respect to logits and values by finite differences of the loops.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.objectives.advantages import generalized_advantages
from llama2_jax.objectives.log_probabilities import log_probabilities
from llama2_jax.objectives.ppo import policy_loss, value_loss
from llama2_jax.objectives.rewards import combine, per_token_rewards, whiten

LENGTHS = (8, 5, 1)
LENGTH, VOCAB = 8, 11
TEMPERATURE, BETA, GAMMA, LAMBDA, CLIP = 0.7, 0.05, 0.99, 0.9, 0.2


def rollout():
    rng = np.random.default_rng(2023)
    shape = (len(LENGTHS), LENGTH)
    return {
        "tokens": rng.integers(0, VOCAB, shape),
        "old_logits": rng.normal(0, 1, (*shape, VOCAB)),
        "reference_logits": rng.normal(0, 1, (*shape, VOCAB)),
        "new_logits_change": rng.normal(0, 0.3, (*shape, VOCAB)),
        "old_values": rng.normal(0, 1, shape),
        "values_change": rng.normal(0, 0.3, shape),
        "safety": np.array([-2.5, 1.0, 0.4]),
        "helpfulness": np.array([3.0, -0.5, 2.0]),
        "safety_prompt": np.array([False, False, True]),
    }


def reference_logp(logits, tokens):
    logp = np.zeros(tokens.shape)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            scaled = logits[row, t] / TEMPERATURE
            logp[row, t] = scaled[tokens[row, t]] - np.log(np.exp(scaled).sum())
    return logp


def reference_advantages(r):
    scores = []
    for safety, helpfulness, tagged in zip(r["safety"], r["helpfulness"], r["safety_prompt"], strict=True):
        scores.append(safety if tagged or 1 / (1 + np.exp(-safety)) < 0.15 else helpfulness)
    mean = sum(scores) / len(scores)
    deviation = np.sqrt(sum((s - mean) ** 2 for s in scores) / len(scores) + 1e-8)
    old_logp = reference_logp(r["old_logits"], r["tokens"])
    frozen_logp = reference_logp(r["reference_logits"], r["tokens"])
    rewards = -BETA * (old_logp - frozen_logp)
    advantages = np.zeros(rewards.shape)
    for row, length in enumerate(LENGTHS):
        rewards[row, length - 1] += (scores[row] - mean) / deviation
        later = 0.0
        for t in reversed(range(length)):
            following = r["old_values"][row, t + 1] if t + 1 < length else 0.0
            later = rewards[row, t] + GAMMA * following - r["old_values"][row, t] + GAMMA * LAMBDA * later
            advantages[row, t] = later
    return old_logp, rewards, advantages


def reference_losses(r, new_logits, new_values):
    old_logp, _, advantages = reference_advantages(r)
    logp = reference_logp(new_logits, r["tokens"])
    policy, value, count = 0.0, 0.0, sum(LENGTHS)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            ratio, advantage = np.exp(logp[row, t] - old_logp[row, t]), advantages[row, t]
            policy -= min(ratio * advantage, min(max(ratio, 1 - CLIP), 1 + CLIP) * advantage) / count
            old = r["old_values"][row, t]
            target = advantage + old
            clipped = min(max(new_values[row, t], old - CLIP), old + CLIP)
            value += 0.5 * max((new_values[row, t] - target) ** 2, (clipped - target) ** 2) / count
    return policy, value


def ours(r):
    mask = np.arange(LENGTH) < np.array(LENGTHS)[:, None]
    r = {name: jnp.asarray(x, jnp.float32) if x.dtype == np.float64 else jnp.asarray(x) for name, x in r.items()}
    old_logp = log_probabilities(r["old_logits"], r["tokens"], TEMPERATURE)
    frozen_logp = log_probabilities(r["reference_logits"], r["tokens"], TEMPERATURE)
    score = whiten(combine(r["safety"], r["helpfulness"], r["safety_prompt"]), jnp.ones(3))
    rewards = per_token_rewards(score, old_logp, frozen_logp, mask, jnp.array(LENGTHS) - 1, BETA)
    advantages, returns = generalized_advantages(rewards, r["old_values"], mask, GAMMA, LAMBDA)

    def losses(logits, values):
        logp = log_probabilities(logits, r["tokens"], TEMPERATURE)
        policy, _ = policy_loss(logp, old_logp, advantages, mask, CLIP, mask.sum())
        value, _ = value_loss(values, r["old_values"], returns, mask, CLIP, mask.sum())
        return policy, value

    return rewards, advantages, losses


@pytest.fixture(scope="module")
def fixed():
    return rollout()


def test_score_is_piecewise_and_whitened_by_hand(fixed):
    # sigmoid(-2.5) = .076 < .15 -> -2.5; not tagged -> -.5; tagged -> .4. Mean -.8667, biased deviation 1.2120.
    score = whiten(combine(fixed["safety"], fixed["helpfulness"], fixed["safety_prompt"]), np.ones(3))
    np.testing.assert_allclose(score, [-1.34765, 0.30253, 1.04512], atol=1e-4)


def test_rewards_and_advantages(fixed):
    _, rewards, advantages = reference_advantages(fixed)
    found_rewards, found_advantages, _ = ours(fixed)
    # float32 rounding through log-softmax and eight steps of recursion
    np.testing.assert_allclose(found_rewards, rewards, atol=1e-5)
    np.testing.assert_allclose(found_advantages, advantages, atol=1e-5)
    np.testing.assert_allclose(found_rewards[2, 0], rewards[2, 0], atol=1e-5)


def test_losses(fixed):
    new_logits = fixed["old_logits"] + fixed["new_logits_change"]
    new_values = fixed["old_values"] + fixed["values_change"]
    _, _, losses = ours(fixed)
    found = losses(jnp.asarray(new_logits, jnp.float32), jnp.asarray(new_values, jnp.float32))
    np.testing.assert_allclose(found, reference_losses(fixed, new_logits, new_values), atol=1e-5)


@pytest.mark.slow
def test_gradients_equal_finite_differences_of_the_loops(fixed):
    new_logits = fixed["old_logits"] + fixed["new_logits_change"]
    new_values = fixed["old_values"] + fixed["values_change"]
    _, _, losses = ours(fixed)
    found_logits, found_values = jax.grad(lambda x, v: sum(losses(x, v)), argnums=(0, 1))(
        jnp.asarray(new_logits, jnp.float32), jnp.asarray(new_values, jnp.float32)
    )
    for which, array, found in ((0, new_logits, found_logits), (1, new_values, found_values)):
        wanted = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                moved = array.copy()
                moved[index] += sign * 1e-6
                ends.append(sum(reference_losses(fixed, *((moved, new_values) if which == 0 else (new_logits, moved)))))
            wanted[index] = (ends[0] - ends[1]) / 2e-6
        # The fixed rollout has no entry within 1e-6 of a kink of min, max or clip; float32 rounding.
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert np.abs(wanted).max() > 0.01
