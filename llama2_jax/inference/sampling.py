"""Sampling of tokens from logits: temperature, nucleus, and inversion of the cumulative distribution."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from llama2_jax.objectives.log_probabilities import log_probabilities

# Weights are summed in blocks first: a cumulative sum over the blocks and one within the chosen block read the
# vocabulary once, while a cumulative sum over all of it would read and write it several times.
BLOCK = 128


def uniforms(key: Key[Array, ""], rows: Int[Array, " batch"], steps: int) -> Float[Array, "batch steps"]:
    """Returns a number in [0, 1) for each row and step, a function of (key, row, step) only."""

    def number(row, step):
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, row), step))

    return jax.vmap(jax.vmap(number, (None, 0)), (0, None))(rows, jnp.arange(steps))


def draw(
    logits: Float[Array, "batch vocab"],
    temperature: Float[Array, " batch"],
    uniform: Float[Array, " batch"],
    top_p: Float[Array, ""] | None = None,
) -> tuple[Int[Array, " batch"], Float[Array, " batch"]]:
    """Samples a token for each row.

    Args:
      logits: float32.
      temperature: by row; 0 takes the token with the highest logit (the first of equals).
      uniform: in [0, 1), the row's randomness.
      top_p: the nucleus, see `nucleus`; None takes all tokens.

    Returns:
      The tokens, and log softmax(logits / temperature) of each, in the distribution before the nucleus is applied; 0 at
      temperature 0, where the token is certain.
    """
    is_random = temperature > 0
    divisor = jnp.where(is_random, temperature, 1.0)
    highest = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp((logits - highest) / divisor[:, None])
    if top_p is not None:
        weights = nucleus(weights, top_p)
    weights = jnp.where(is_random[:, None], weights, (logits == highest).astype(weights.dtype))
    tokens = inverse_cumulative(weights, jnp.where(is_random, uniform, 0.0))
    return tokens, jnp.where(is_random, log_probabilities(logits, tokens, divisor), 0.0)


def nucleus(weights: Float[Array, "batch vocab"], top_p: Float[Array, ""]) -> Float[Array, "batch vocab"]:
    """Sets weights outside the nucleus to 0: sorted by falling probability p, those with cumsum - p > top_p.

    As in Meta's generation code, except that tokens of exactly equal weight at the edge are all kept. Not normalised.

    Sorting the vocabulary at every step takes longer than the step, so the edge, the smallest weight that is kept, is
    found by bisection. Non-negative floats are ordered like their bits, so 31 halvings find it exactly.
    """
    bits = jax.lax.bitcast_convert_type(weights, jnp.int32)
    allowed = top_p * jnp.sum(weights, axis=-1)

    def halve(_, bounds):
        below, edge = bounds
        middle = below + (edge - below) // 2
        ahead = jnp.sum(jnp.where(bits > middle[:, None], weights, 0.0), axis=-1)
        return jnp.where(ahead <= allowed, below, middle), jnp.where(ahead <= allowed, middle, edge)

    _, edge = jax.lax.fori_loop(0, 31, halve, (jnp.full(len(weights), -1, jnp.int32), jnp.max(bits, axis=-1)))
    return jnp.where(bits >= edge[:, None], weights, 0.0)


def inverse_cumulative(weights: Float[Array, "batch vocab"], uniform: Float[Array, " batch"]) -> Int[Array, " batch"]:
    """Returns the first index where the cumulative sum of the weights exceeds uniform * total; never one of weight 0.

    This needs one random number a row; Gumbel noise would need one for every token of the vocabulary.
    """
    batch, vocab = weights.shape
    blocks = jnp.pad(weights, ((0, 0), (0, -vocab % BLOCK))).reshape(batch, -1, BLOCK)
    sums = jnp.sum(blocks, axis=-1)
    ends = jnp.cumsum(sums, axis=-1)
    target = uniform * ends[:, -1]
    block = _first_beyond(ends, sums, target)[:, None]
    before = jnp.take_along_axis(ends - sums, block, axis=-1)[:, 0]
    inside = jnp.take_along_axis(blocks, block[:, :, None], axis=1)[:, 0]
    return block[:, 0] * BLOCK + _first_beyond(jnp.cumsum(inside, axis=-1), inside, target - before)


def _first_beyond(
    cumulative: Float[Array, "batch n"], weights: Float[Array, "batch n"], target: Float[Array, " batch"]
) -> Int[Array, " batch"]:
    """Returns the first index of positive weight with a cumulative sum above the target (the last, by rounding)."""
    index, n = jnp.arange(weights.shape[-1]), weights.shape[-1]
    first = jnp.min(jnp.where((cumulative > target[:, None]) & (weights > 0), index, n), axis=-1)
    last = jnp.max(jnp.where(weights > 0, index, 0), axis=-1)
    return jnp.where(first < n, first, last)
