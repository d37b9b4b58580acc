"""The log-probabilities of given tokens from hidden states, without holding all logits at once.

Logits [rows, length, vocab] in float32 are the largest array of a training step: 32,000 numbers a token. Here they are
made for a chunk of positions at a time, and made again, chunk by chunk, where the backward pass needs them. It costs
one more product with the head and saves all but one chunk's logits.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from llama2_jax.objectives.log_probabilities import log_probabilities

# One for each group of devices that holds rows of its own; on one device there is one.
Head = Float[Array, "groups dim vocab"]


class TargetScores(NamedTuple):
    """What a model says of the given tokens.

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
    """Scores of `targets` under the logits hidden @ head; gradients flow to `hidden` and `head`.

    Args:
      hidden: the states from which each target is predicted.
      head: the matrix from states to logits, once for each group of neighbouring rows: the rows are dealt out evenly,
        the first rows / groups of them to the first. The head's gradient is summed up within a group, and over
        the groups only once, so that groups on different devices exchange it once and not once a chunk.
      targets: the tokens to look up, from 0 to vocab - 1; any valid token where it has no meaning (mask the result).
      temperature: as in `log_probabilities`; a constant, which gets no gradient.
      chunk: positions of the length whose logits exist at once; 0 for all of them, which the backward pass then reads
        again rather than makes again. A length that it does not divide is taken in equal chunks of no more than it.

    Returns:
      The scores, the same for every chunk but for the order of float32 sums in the gradients.

    Raises:
      ValueError: for a negative chunk, and for rows that the groups do not divide.
    """
    rows, length, _ = hidden.shape
    if chunk < 0:
        raise ValueError(f"logits_chunk is {chunk}; it must be a number of positions, or 0 for all of them at once.")
    if rows % head.shape[0]:
        raise ValueError(f"{rows} rows can not be split evenly over {head.shape[0]} groups of devices.")
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
    """[rows, length, ...] as [chunks, groups, rows of a group * positions of a chunk, ...], filled up."""
    if x is None:
        return None
    rows, length, *rest = x.shape
    positions = -(-length // chunks)
    x = jnp.pad(x, ((0, 0), (0, chunks * positions - length), *((0, 0) for _ in rest)), mode="edge")
    x = jnp.moveaxis(x.reshape(groups, rows // groups, chunks, positions, *rest), 2, 0)
    return x.reshape(chunks, groups, -1, *rest)


def _join(x: Array, rows: int, length: int) -> Array:
    """[chunks, groups, rows of a group * positions of a chunk] as [rows, length]."""
    chunks, groups, _ = x.shape
    x = x.reshape(chunks, groups, rows // groups, -1)
    return jnp.moveaxis(x, 0, 2).reshape(rows, -1)[:, :length]


def _score(logits, targets, temperature) -> tuple[Array, Array]:
    log_p = log_probabilities(logits, targets, temperature)
    # A comparison with the maximum and not argmax, which is several times slower on the CPU.
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return log_p, jax.lax.stop_gradient(chosen) >= jnp.max(jax.lax.stop_gradient(logits), axis=-1)


def _score_all(temperature, head, hidden, targets, temperatures):
    number = temperature if temperatures is None else temperatures[0]
    scores = _score(_logits(hidden[0], head), targets[0], number)
    return tuple(x[None] for x in scores)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _score_chunks(temperature, head, hidden, targets, temperatures):
    def one(_, chunk):
        hidden, targets, temperatures = chunk
        number = temperature if temperatures is None else temperatures
        return None, _score(_logits(hidden, head), targets, number)

    return jax.lax.scan(one, None, (hidden, targets, temperatures))[1]


def _score_chunks_forward(temperature, head, hidden, targets, temperatures):
    return _score_chunks(temperature, head, hidden, targets, temperatures), (head, hidden, targets, temperatures)


def _score_chunks_backward(temperature, saved, cotangents):
    head, *chunks = saved

    def one(head_gradient, chunk):
        hidden, targets, temperatures, cotangent = chunk
        number = temperature if temperatures is None else temperatures
        logits = _logits(hidden, head)
        _, pull = jax.vjp(lambda x: log_probabilities(x, targets, number), logits)
        of_hidden, of_head = _logits_gradients(hidden, head, pull(cotangent)[0])
        return head_gradient + of_head, of_hidden

    # In float32 whatever the dtype of the head: the sum of many chunks would lose its last bits in bfloat16.
    nothing = jnp.zeros(head.shape, jnp.float32)
    head_gradient, hidden_gradient = jax.lax.scan(one, nothing, (*chunks, cotangents[0]))
    return head_gradient.astype(head.dtype), hidden_gradient, None, None


_score_chunks.defvjp(_score_chunks_forward, _score_chunks_backward)


@jax.custom_vjp
def _logits(hidden: Float[Array, "groups tokens dim"], head: Head) -> Float[Array, "groups tokens vocab"]:
    """hidden @ head in float32; its backward products take the gradient of the logits in the dtype of the states."""
    return jnp.einsum("gtd,gdv->gtv", hidden, head, preferred_element_type=jnp.float32)


def _logits_backward(saved, cotangent):
    of_hidden, of_head = _logits_gradients(*saved, cotangent)
    return of_hidden, of_head.astype(saved[1].dtype)


def _logits_gradients(hidden: Array, head: Array, cotangent: Array) -> tuple[Array, Array]:
    # A product of bfloat16 and float32 would be computed in float32, at a fraction of the speed.
    cotangent = cotangent.astype(hidden.dtype)
    of_hidden = jnp.einsum("gtv,gdv->gtd", cotangent, head, preferred_element_type=jnp.float32)
    return of_hidden.astype(hidden.dtype), jnp.einsum(
        "gtd,gtv->gdv", hidden, cotangent, preferred_element_type=jnp.float32
    )


_logits.defvjp(lambda hidden, head: (_logits(hidden, head), (hidden, head)), _logits_backward)
