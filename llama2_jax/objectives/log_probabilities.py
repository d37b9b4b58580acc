"""The log-probability of given tokens: the one function that sampling checks, old, new and reference policies use."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def log_probabilities(
    logits: Float[Array, "*batch vocab"], targets: Int[Array, "*batch"], temperature: float | Float[Array, "..."]
) -> Float[Array, "*batch"]:
    """log softmax(logits / temperature)[target], in float32 whatever the type of the logits.

    Args:
      logits: unnormalised scores of every token of the vocabulary.
      targets: the tokens to look up, from 0 to vocab - 1. Where a target has no meaning (padding) give any valid
        token and mask the result.
      temperature: what the logits are divided by; above 0; a number, or an array that broadcasts against targets
        (a column [rows, 1] for a temperature per row). It has no default, because the same tokens must be scored at
        the temperature at which they were sampled.
    """
    logits = _scaled(logits, temperature)
    # The difference of two numbers a token, and no array of log-probabilities: JAX's own derivative of this form then
    # works in one array of the logits' size. A hand-written one was measured: slower and larger in memory, because
    # XLA computes it once for each of the two matrix products that read it.
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def entropy(
    logits: Float[Array, "*batch vocab"], temperature: float | Float[Array, "..."] = 1.0
) -> Float[Array, "*batch"]:
    """The entropy of softmax(logits / temperature) in nats, in float32."""
    log_p = jax.nn.log_softmax(_scaled(logits, temperature), axis=-1)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def _scaled(
    logits: Float[Array, "*batch vocab"], temperature: float | Float[Array, "..."]
) -> Float[Array, "*batch vocab"]:
    logits = logits.astype(jnp.float32)
    if isinstance(temperature, int | float):
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0 to score tokens, found {temperature}")
        return logits if temperature == 1.0 else logits / temperature
    return logits / jnp.asarray(temperature, jnp.float32)[..., None]
