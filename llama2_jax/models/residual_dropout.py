"""Residual dropout, in training alone: a part of what each layer adds to the residual stream is dropped.

"We apply dropout over residual connections, starting at p_d = 0.0 at the bottom layer and linearly raising the rate to
p_d = 0.3 at the last layer (p_d = 0.2 for smaller models)" (Zhou et al. 2023, arXiv 2305.11206, section 3).

What is dropped travels with the parameters, as the dropout of adapters does: `with_residual_dropout` adds an entry to
those of the layers, which whatever applies a model takes notice of. Models on disk never have it.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

# The name of the entry among a layer's parameters, and what of a layer it is applied to.
ENTRY = "residual_dropout"
ATTENTION, MLP = 0, 1


@flax.struct.dataclass
class ResidualDropout:
    """The dropout of one layer, or of all layers stacked on axis 0.

    Attributes:
      rate: the part that is dropped.
      key: what is dropped depends on it.
    """

    rate: Float[Array, "*layers"]
    key: Key[Array, "*layers"]


def with_residual_dropout(params: dict, rate: float, key: Key[Array, ""]) -> dict:
    """Returns a model's parameters, plain or adapted, with a dropout that rises by layer from 0 to the rate.

    Args:
      params: the model's.
      rate: of the last layer, p_d(l) = rate l / (L - 1) for l = 0 .. L - 1; a single layer has no dropout.
      key: what is dropped depends on it; each layer gets its own.
    """
    layers = params["trunk"]["layers"]
    count = len(layers["attention_norm"])
    dropout = ResidualDropout(jnp.linspace(0.0, rate, count), jax.random.split(key, count))
    return {**params, "trunk": {**params["trunk"], "layers": {**layers, ENTRY: dropout}}}


def drop(
    added: Float[Array, "rows length dim"], dropout: ResidualDropout | None, place: int
) -> Float[Array, "rows length dim"]:
    """Returns what a layer adds to the residual stream, a part of it dropped and the rest scaled up for it.

    Args:
      added: the result of the attention or of the feed-forward.
      dropout: the layer's; None drops nothing.
      place: ATTENTION or MLP, which drop different parts.
    """
    if dropout is None:
        return added
    kept = jax.random.bernoulli(jax.random.fold_in(dropout.key, place), 1 - dropout.rate, added.shape)
    return jnp.where(kept, added / (1 - dropout.rate), 0).astype(added.dtype)
