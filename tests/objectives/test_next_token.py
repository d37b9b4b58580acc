"""The next-token loss against a loop over segments in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.objectives import next_token
from llama2_jax.objectives.next_token import count_targets, target_mask
from llama2_jax.objectives.target_scores import score_targets

SEGMENTS = np.array([[1, 1, 1, 2, 2, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]], np.int32)
MASK = np.array([[1, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 0, 1, 1]], np.int32)


def next_token_loss(logits, tokens, mask, segments, denominator):
    """The loss of given logits, passed as hidden states with an identity head."""
    scores = score_targets(jnp.asarray(logits), jnp.eye(19)[None], jnp.roll(tokens, -1, axis=-1), 1.0, 0)
    return next_token.next_token_loss(scores, mask, segments, denominator)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 8, 19)).astype(np.float32)
    return logits, rng.integers(0, 19, (2, 8)).astype(np.int32)


def reference(logits, tokens, mask, segments):
    """A loop over targets: the token must be in the mask, and the one before it in the same segment."""
    total, correct, count = 0.0, 0, 0
    for row in range(tokens.shape[0]):
        for t in range(1, tokens.shape[1]):
            if mask[row, t] and segments[row, t] and segments[row, t] == segments[row, t - 1]:
                scores = logits[row, t - 1].astype(np.float64)
                total -= scores[tokens[row, t]] - np.log(np.exp(scores).sum())
                correct += scores.argmax() == tokens[row, t]
                count += 1
    return total, correct, count


def test_targets_are_shifted_and_never_cross_segments():
    wanted = np.array([[0, 1, 0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 1, 1, 0]], bool)
    np.testing.assert_array_equal(target_mask(MASK, SEGMENTS), wanted)
    assert count_targets(MASK, SEGMENTS) == 6


def test_loss_and_accuracy_equal_a_loop_over_targets(batch):
    logits, tokens = batch
    tokens[1, 4] = logits[1, 3].argmax()
    total, correct, count = reference(logits, tokens, MASK, SEGMENTS)
    loss, metrics = next_token_loss(logits, tokens, MASK, SEGMENTS, count_targets(MASK, SEGMENTS))
    np.testing.assert_allclose(loss, total / count, rtol=1e-6)  # float32 sums of a few numbers
    assert correct >= 1
    np.testing.assert_allclose(metrics["accuracy"], correct / count, rtol=1e-6)


def test_parts_add_up_to_the_whole(batch):
    logits, tokens = batch
    count = count_targets(MASK, SEGMENTS)
    whole, _ = next_token_loss(logits, tokens, MASK, SEGMENTS, count)
    parts = [
        next_token_loss(logits[i : i + 1], tokens[i : i + 1], MASK[i : i + 1], SEGMENTS[i : i + 1], count)[0]
        for i in range(2)
    ]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-6)


def test_only_targets_have_a_gradient(batch):
    logits, tokens = batch
    gradient = jax.grad(lambda x: next_token_loss(x, tokens, MASK, SEGMENTS, 1.0)[0])(jnp.asarray(logits))
    is_target = np.asarray(target_mask(MASK, SEGMENTS))
    np.testing.assert_array_equal(np.asarray(gradient)[~is_target], 0.0)
    assert (np.abs(np.asarray(gradient)[is_target]).sum(-1) > 0).all()


def test_tokens_outside_the_mask_are_ignored(batch):
    logits, tokens = batch
    changed = np.where(np.roll(np.asarray(target_mask(MASK, SEGMENTS)), 1, axis=1), tokens, 0)
    loss = [next_token_loss(logits, t, MASK, SEGMENTS, 6.0)[0] for t in (tokens, changed)]
    assert loss[0] == loss[1]


def test_a_batch_without_targets_has_loss_zero(batch):
    logits, tokens = batch
    nothing = np.zeros_like(MASK)
    loss, _ = next_token_loss(logits, tokens, nothing, SEGMENTS, count_targets(nothing, SEGMENTS))
    assert loss == 0.0
