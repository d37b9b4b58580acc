"""Scores from hidden states, in chunks of positions, against all logits at once in float64."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.objectives.log_probabilities import log_probabilities
from llama2_jax.objectives.target_scores import score_targets

slow = pytest.mark.slow

ROWS, LENGTH, DIM, VOCAB = 4, 13, 8, 31
# Float32 rounding of a logsumexp, and of gradients that are sums over 52 tokens.
ROUNDING = 1e-5
TEMPERATURES = {"one": 1.0, "scalar": 0.7, "array": np.float32(1.3), "by row": np.array([[0.5], [1.0], [2.0], [0.7]])}


@pytest.fixture(scope="module")
def states():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(ROWS, LENGTH, DIM)).astype(np.float32)
    head = rng.normal(size=(DIM, VOCAB)).astype(np.float32)
    return hidden, head, rng.integers(0, VOCAB, (ROWS, LENGTH)), rng.normal(size=(ROWS, LENGTH)).astype(np.float32)


def reference(hidden, head, targets, weights, temperature):
    """Log-probabilities, and the gradients of their weighted sum, in float64 and without autodiff."""
    hidden, head = np.asarray(hidden, np.float64), np.asarray(head, np.float64)
    temperature = np.broadcast_to(np.asarray(temperature, np.float64), targets.shape)[..., None]
    scaled = hidden @ head / temperature
    log_p = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
    of_logits = weights[..., None] * (np.eye(VOCAB)[targets] - np.exp(log_p)) / temperature
    chosen = np.take_along_axis(log_p, targets[..., None], -1)[..., 0]
    return chosen, of_logits @ head.T, np.einsum("rld,rlv->dv", hidden, of_logits)


def with_gradients(hidden, head, targets, weights, temperature, chunk, groups=1):
    def weighted(hidden, head):
        copies = jnp.broadcast_to(head, (groups, *head.shape))
        scores = score_targets(hidden, copies, targets, temperature, chunk)
        return jnp.sum(weights * scores.log_probability), scores

    (_, scores), gradients = jax.jit(jax.value_and_grad(weighted, argnums=(0, 1), has_aux=True))(hidden, head)
    return scores, *gradients


@pytest.mark.parametrize(
    ("chunk", "temperature"),
    [(0, "one"), (0, "by row"), (5, "one"), (5, "scalar"), (5, "array"), (5, "by row")],
)
def test_values_and_gradients_equal_all_logits_in_float64(states, chunk, temperature):
    temperature = TEMPERATURES[temperature]
    scores, of_hidden, of_head = with_gradients(*states, temperature, chunk)
    log_p, wanted_of_hidden, wanted_of_head = reference(*states, temperature)
    assert scores.log_probability.dtype == jnp.float32
    np.testing.assert_allclose(scores.log_probability, log_p, atol=ROUNDING)
    np.testing.assert_allclose(of_hidden, wanted_of_hidden, atol=ROUNDING)
    np.testing.assert_allclose(of_head, wanted_of_head, atol=5 * ROUNDING)
    hidden, head, targets, _ = states
    np.testing.assert_array_equal(scores.is_highest, (hidden @ head).argmax(-1) == targets)


@pytest.mark.parametrize(
    ("chunk", "groups"), [(6, 4), *(pytest.param(*case, marks=slow) for case in ((1, 1), (12, 2), (100, 2)))]
)
def test_neither_chunk_nor_groups_change_anything(states, chunk, groups):
    whole, split = with_gradients(*states, 0.7, 0), with_gradients(*states, 0.7, chunk, groups)
    np.testing.assert_array_equal(split[0].is_highest, whole[0].is_highest)
    np.testing.assert_allclose(split[0].log_probability, whole[0].log_probability, atol=ROUNDING)
    for got, wanted in zip(split[1:], whole[1:], strict=True):
        np.testing.assert_allclose(got, wanted, atol=ROUNDING)


def test_is_the_one_function_of_log_probabilities(states):
    """Bit for bit: the policy's ratio at the first minibatch is exp of a difference of these."""
    hidden, head, targets, _ = (jnp.asarray(x) for x in states)
    wanted = log_probabilities(hidden @ head, targets, 0.7)
    np.testing.assert_array_equal(score_targets(hidden, head[None], targets, 0.7, 0).log_probability, wanted)


@pytest.mark.parametrize("chunk", [4, pytest.param(0, marks=slow)])
def test_bfloat16_states_give_float32_scores(states, chunk):
    hidden, head, targets, weights = states
    hidden, head = jnp.asarray(hidden, jnp.bfloat16), jnp.asarray(head, jnp.bfloat16)
    scores, of_hidden, of_head = with_gradients(hidden, head, targets, weights, 0.7, chunk)
    log_p, wanted_of_hidden, wanted_of_head = reference(hidden, head, targets, weights, 0.7)
    assert (scores.log_probability.dtype, of_hidden.dtype, of_head.dtype) == (jnp.float32, jnp.bfloat16, jnp.bfloat16)
    # Products of bfloat16 numbers are exact in float32, so the values are as accurate as float32 ones.
    np.testing.assert_allclose(scores.log_probability, log_p, atol=ROUNDING)
    # Gradients are rounded to bfloat16, 2^-9 of each number, twice: those of the logits and the results.
    for found, wanted in ((of_hidden, wanted_of_hidden), (of_head, wanted_of_head)):
        np.testing.assert_allclose(found.astype(jnp.float32), wanted, atol=2**-8 * np.abs(wanted).max())


def test_the_heads_gradient_is_summed_in_float32(states):
    """In bfloat16 a sum of 512 equal numbers stops growing at 256 of them."""
    hidden, head = jnp.ones((1, 512, 1), jnp.bfloat16), jnp.zeros((1, 2), jnp.bfloat16)
    targets, weights = jnp.zeros((1, 512), jnp.int32), jnp.ones((1, 512))
    _, _, of_head = with_gradients(hidden, head, targets, weights, 1.0, chunk=1)
    np.testing.assert_array_equal(np.asarray(of_head, np.float32), [[256.0, -256.0]])


@slow
def test_padded_positions_have_no_gradient_and_no_score(states):
    """13 positions in chunks of 12 are 2 chunks of 7: the padding of the second one must have no effect."""
    hidden, head, targets, weights = states
    scores, of_hidden, of_head = with_gradients(hidden[:, -1:], head, targets[:, -1:], weights[:, -1:], 1.0, 0)
    only_last = np.where(np.arange(LENGTH) == LENGTH - 1, weights, 0.0)
    split, split_of_hidden, split_of_head = with_gradients(hidden, head, targets, only_last, 1.0, 12)
    np.testing.assert_allclose(split.log_probability[:, -1:], scores.log_probability, atol=ROUNDING)
    np.testing.assert_allclose(split_of_hidden[:, -1:], of_hidden, atol=ROUNDING)
    np.testing.assert_array_equal(split_of_hidden[:, :-1], 0.0)
    np.testing.assert_allclose(split_of_head, of_head, atol=ROUNDING)


def test_the_temperature_is_a_constant(states):
    hidden, head, targets, _ = (jnp.asarray(x) for x in states)
    for chunk in (0, 4):
        gradient = jax.grad(lambda t, c=chunk: score_targets(hidden, head[None], targets, t, c).log_probability.sum())
        assert gradient(1.0) == 0.0


def float32_sizes(program, *arguments):
    """The number of elements of every float32 array in a compiled program."""
    text = jax.jit(program).lower(*arguments).compile().as_text()
    return {math.prod(int(size) for size in found.split(",")) for found in re.findall(r"f32\[([\d,]+)\]", text)}


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=slow)])
def test_no_array_of_all_logits_is_in_the_compiled_program(dtype):
    rows, length, dim, vocab, chunk = 2, 64, 8, 512, 16
    hidden, head = jnp.ones((rows, length, dim), dtype), jnp.ones((dim, vocab), dtype)
    targets = jnp.zeros((rows, length), jnp.int32)

    def program(chunk):
        return lambda hidden, head: with_gradients(hidden, head, targets, jnp.ones(targets.shape), 1.0, chunk)

    assert max(float32_sizes(program(0), hidden, head)) >= rows * length * vocab
    assert max(float32_sizes(program(chunk), hidden, head)) == rows * chunk * vocab


def test_invalid_arguments_raise(states):
    hidden, head, targets, _ = (jnp.asarray(x) for x in states)
    with pytest.raises(ValueError, match="logits_chunk is -1"):
        score_targets(hidden, head[None], targets, 1.0, -1)
    with pytest.raises(ValueError, match="4 rows cannot be split evenly over 3 groups"):
        score_targets(hidden, jnp.stack([head] * 3), targets, 1.0, 0)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        score_targets(hidden, head[None], targets, 0.0, 4)
