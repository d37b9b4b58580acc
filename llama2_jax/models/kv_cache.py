"""The KV cache: keys and values of earlier tokens, so that a new token costs one step and not a whole forward pass."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from llama2_jax.models.config import ModelConfig


@flax.struct.dataclass
class KVCache:
    """One array of keys and one of values a layer: a stack of all layers would be copied at every step of decoding.

    Attributes:
      keys: for each layer [batch, kv_heads, head_dim, slots], already rotated, in the compute dtype.
      values: for each layer [batch, kv_heads, slots, head_dim]. Keys and values are stored in the order in which the
        two products of attention read them, which at least halves the time of a decoding step's attention on the CPU.
      positions: the position in its sequence of the token in each slot; -1 for empty slots and padding. A query attends
        to slots with 0 <= slot position <= its own position.
      index: the next free slot, the same for all rows.
    """

    keys: tuple[Float[Array, "batch kv_heads head_dim slots"], ...]
    values: tuple[Float[Array, "batch kv_heads slots head_dim"], ...]
    positions: Int[Array, "batch slots"]
    index: Int[Array, ""]


def empty_cache(config: ModelConfig, batch: int, slots: int) -> KVCache:
    """Returns an empty cache with `slots` slots for each of `batch` rows."""
    keys = (batch, config.kv_heads, config.head_dim, slots)
    values = (batch, config.kv_heads, slots, config.head_dim)
    return KVCache(
        keys=tuple(jnp.zeros(keys, config.compute_dtype) for _ in range(config.layers)),
        values=tuple(jnp.zeros(values, config.compute_dtype) for _ in range(config.layers)),
        positions=jnp.full((batch, slots), -1, jnp.int32),
        index=jnp.zeros((), jnp.int32),
    )


def take_rows(cache: KVCache, rows: Int[Array, " taken"]) -> KVCache:
    """Returns the cache of the given rows, in that order; a row may be repeated (samples that share a prefill)."""
    taken = jax.tree.map(lambda array: array[rows], (cache.keys, cache.values, cache.positions))
    return KVCache(*taken, index=cache.index)
