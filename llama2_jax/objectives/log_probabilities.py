"""The log-probability of given tokens: one function for sampling checks, old, new and reference policies."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def log_probabilities(
    logits: Float[Array, "*batch vocab"], targets: Int[Array, "*batch"], temperature: float | Float[Array, "..."]
) -> Float[Array, "*batch"]:
    """Returns log softmax(logits / temperature)[target], in float32 for logits of any dtype.

    Args:
      logits: unnormalised scores of every token of the vocabulary.
      targets: the tokens to look up, from 0 to vocab - 1. At padding give any valid token and mask the result.
      temperature: divides the logits; above 0; a number, or an array that broadcasts against targets (a column
        [rows, 1] for a temperature per row). It has no default, because tokens must be scored at the temperature at
        which they were sampled.

    Raises:
      ValueError: if the temperature is a number that is not above 0.
    """
    logits = _scaled(logits, temperature)
    # A difference of two numbers a token, without an array of log-probabilities: JAX's own derivative of this form
    # needs one array of the logits' size. A hand-written derivative was measured to be slower and larger in memory,
    # because XLA computes it once for each of the two matrix products that read it.
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def _scaled(
    logits: Float[Array, "*batch vocab"], temperature: float | Float[Array, "..."]
) -> Float[Array, "*batch vocab"]:
    logits = logits.astype(jnp.float32)
    if isinstance(temperature, int | float):
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0 to score tokens, found {temperature}")
        return logits if temperature == 1.0 else logits / temperature
    return logits / jnp.asarray(temperature, jnp.float32)[..., None]
