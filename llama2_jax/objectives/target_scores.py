"""Log-probabilities of given tokens from hidden states, without all logits in memory at once.

Logits [rows, length, vocab] in float32 are the largest array of a training step: 32,000 numbers a token. Here they are
computed for a chunk of positions at a time and recomputed by the backward pass, chunk by chunk. This costs one more
product with the head and saves the memory of all but one chunk's logits.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from llama2_jax.objectives.log_probabilities import log_probabilities

# One copy for each group of devices that shares rows; on a single device there is one group.
Head = Float[Array, "groups dim vocab"]


class TargetScores(NamedTuple):
    """A model's scores of given tokens.

    Attributes:
      log_probability: log softmax(logits / temperature)[target], float32.
      is_highest: whether no token has a higher logit than the target.
    """

    log_probability: Float[Array, "rows length"]
    is_highest: Bool[Array, "rows length"]


def score_targets(
    hidden: Float[Array, "rows length dim"],
    head: Head,
    targets: Int[Array, "rows length"],
    temperature: float | Float[Array, "..."],
    chunk: int,
) -> TargetScores:
    """Returns scores of `targets` under the logits hidden @ head; gradients flow to `hidden` and `head`.

    Args:
      hidden: the states from which each target is predicted.
      head: the matrix from states to logits, once for each group of neighbouring rows: the rows are split evenly, the
        first rows / groups of them to the first group. The head's gradient is summed within a group, and over the
        groups only once, so that groups on different devices exchange it once and not for every chunk.
      targets: the tokens to look up, from 0 to vocab - 1; at padding any valid token (mask the result).
      temperature: as in `log_probabilities`; a constant without gradient.
      chunk: at how many positions the logits exist at once; 0 for all of them, kept for the backward pass and not
        recomputed. A length that is no multiple of it is split into equal chunks of at most this size.

    Returns:
      The scores. They do not depend on the chunk, except for the order of float32 sums in the gradients.

    Raises:
      ValueError: if the chunk is negative, or the rows are no multiple of the groups.
    """
    rows, length, _ = hidden.shape
    if chunk < 0:
        raise ValueError(f"logits_chunk is {chunk}; it must be a number of positions, or 0 for all of them at once.")
    if rows % head.shape[0]:
        raise ValueError(f"{rows} rows cannot be split evenly over {head.shape[0]} groups of devices.")
    chunks = -(-length // chunk) if chunk else 1
    temperatures = None
    if not isinstance(temperature, int | float):
        temperatures = jnp.broadcast_to(jax.lax.stop_gradient(jnp.asarray(temperature)), targets.shape)
        temperature = None
    arguments = (_split(x, chunks, head.shape[0]) for x in (hidden, targets, temperatures))
    score = _score_all if chunks == 1 else _score_chunks
    scores = score(temperature, head, *arguments)
    return TargetScores(*(_join(x, rows, length) for x in scores))


def _split(x: Array | None, chunks: int, groups: int) -> Array | None:
    """Returns [rows, length, ...] as [chunks, groups, rows of a group * positions of a chunk, ...], padded."""
    if x is None:
        return None
    rows, length, *rest = x.shape
    positions = -(-length // chunks)
    x = jnp.pad(x, ((0, 0), (0, chunks * positions - length), *((0, 0) for _ in rest)), mode="edge")
    x = jnp.moveaxis(x.reshape(groups, rows // groups, chunks, positions, *rest), 2, 0)
    return x.reshape(chunks, groups, -1, *rest)


def _join(x: Array, rows: int, length: int) -> Array:
    """Returns [chunks, groups, rows of a group * positions of a chunk] as [rows, length]."""
    chunks, groups, _ = x.shape
    x = x.reshape(chunks, groups, rows // groups, -1)
    return jnp.moveaxis(x, 0, 2).reshape(rows, -1)[:, :length]


def _score(logits, targets, temperature) -> tuple[Array, Array]:
    log_p = log_probabilities(logits, targets, temperature)
    # Compared with the maximum, since argmax is several times slower on the CPU.
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return log_p, jax.lax.stop_gradient(chosen) >= jnp.max(jax.lax.stop_gradient(logits), axis=-1)


def _score_all(temperature, head, hidden, targets, temperatures):
    temperature = temperature if temperatures is None else temperatures[0]
    scores = _score(_logits(hidden[0], head), targets[0], temperature)
    return tuple(x[None] for x in scores)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _score_chunks(temperature, head, hidden, targets, temperatures):
    def score_chunk(_, chunk):
        hidden, targets, temperatures = chunk
        chunk_temperature = temperature if temperatures is None else temperatures
        return None, _score(_logits(hidden, head), targets, chunk_temperature)

    return jax.lax.scan(score_chunk, None, (hidden, targets, temperatures))[1]


def _score_chunks_forward(temperature, head, hidden, targets, temperatures):
    return _score_chunks(temperature, head, hidden, targets, temperatures), (head, hidden, targets, temperatures)


def _score_chunks_backward(temperature, saved, cotangents):
    head, *chunks = saved

    def add_chunk(head_gradient, chunk):
        hidden, targets, temperatures, cotangent = chunk
        chunk_temperature = temperature if temperatures is None else temperatures
        logits = _logits(hidden, head)
        _, vjp = jax.vjp(lambda x: log_probabilities(x, targets, chunk_temperature), logits)
        of_hidden, of_head = _logits_gradients(hidden, head, vjp(cotangent)[0])
        return head_gradient + of_head, of_hidden

    # Float32 for a head of any dtype: the sum of many chunks would lose its last bits in bfloat16.
    zeros = jnp.zeros(head.shape, jnp.float32)
    head_gradient, hidden_gradient = jax.lax.scan(add_chunk, zeros, (*chunks, cotangents[0]))
    return head_gradient.astype(head.dtype), hidden_gradient, None, None


_score_chunks.defvjp(_score_chunks_forward, _score_chunks_backward)


@jax.custom_vjp
def _logits(hidden: Float[Array, "groups tokens dim"], head: Head) -> Float[Array, "groups tokens vocab"]:
    """Returns hidden @ head in float32; its backward products take the logits' gradient in the dtype of the states."""
    return jnp.einsum("gtd,gdv->gtv", hidden, head, preferred_element_type=jnp.float32)


def _logits_backward(saved, cotangent):
    of_hidden, of_head = _logits_gradients(*saved, cotangent)
    return of_hidden, of_head.astype(saved[1].dtype)


def _logits_gradients(hidden: Array, head: Array, cotangent: Array) -> tuple[Array, Array]:
    # A product of bfloat16 and float32 would be computed in float32, much more slowly.
    cotangent = cotangent.astype(hidden.dtype)
    of_hidden = jnp.einsum("gtv,gdv->gtd", cotangent, head, preferred_element_type=jnp.float32)
    return of_hidden.astype(hidden.dtype), jnp.einsum(
        "gtd,gtv->gdv", hidden, cotangent, preferred_element_type=jnp.float32
    )


_logits.defvjp(lambda hidden, head: (_logits(hidden, head), (hidden, head)), _logits_backward)
