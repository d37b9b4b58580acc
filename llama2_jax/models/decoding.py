"""The network for generation: prompts are taken in at once, then one token a step, with keys and values kept.

Always unrolled over the layers, each with cache arrays of its own. The layers' weights are taken out of their stacks,
and cast to the compute dtype, before the loop and not at every step; see inference/consolidation.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from llama2_jax.models.attention import attention, program_device
from llama2_jax.models.attention_xla import cached_attention
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.kv_cache import KVCache, take_rows
from llama2_jax.models.layer import (
    EMBEDDING_AXES,
    HEAD_AXES,
    LAYER_AXES,
    NORM_AXES,
    LayerWeights,
    embed,
    output_and_mlp,
    queries_keys_values,
    rms_norm,
)
from llama2_jax.models.rope import rotation
from llama2_jax.sharding.axes import GATHERED, RULES, Rules, constrain, partition_spec

KEY_AXES, VALUE_AXES = ("batch", "kv_heads", "head_dim", "slots"), ("batch", "kv_heads", "slots", "head_dim")


@flax.struct.dataclass
class DecodingWeights:
    """A language model's parameters in the compute dtype, the layers apart."""

    embedding: Float[Array, "vocab dim"]
    layers: tuple[LayerWeights, ...]
    final_norm: Float[Array, "dim"]
    head: Float[Array, "dim vocab"]


def weight_rules(config: ModelConfig) -> Rules:
    """How the weights lie on a mesh: consolidated, or as in training."""
    return GATHERED if config.consolidate_weights else RULES


def weight_shardings(config: ModelConfig, mesh: Mesh) -> DecodingWeights:
    """The sharding of each weight."""

    def place(axes: tuple[str, ...]) -> NamedSharding:
        return NamedSharding(mesh, partition_spec(axes, weight_rules(config)))

    layers = tuple({name: place(axes) for name, axes in LAYER_AXES.items()} for _ in range(config.layers))
    return DecodingWeights(place(EMBEDDING_AXES), layers, place(NORM_AXES), place(HEAD_AXES))


def decoding_weights(params: dict[str, Any], config: ModelConfig, mesh: Mesh | None = None) -> DecodingWeights:
    """Returns a language model's parameters as decoding reads them; inside a compiled program."""

    def ready(weight: Array, axes: tuple[str, ...]) -> Array:
        return constrain(weight.astype(config.compute_dtype), mesh, axes, weight_rules(config))

    stacks = params["trunk"]["layers"].items()
    return DecodingWeights(
        embedding=ready(params["trunk"]["embedding"], EMBEDDING_AXES),
        layers=by_layer({name: unstack(stack, LAYER_AXES[name], config, mesh) for name, stack in stacks}),
        final_norm=ready(params["trunk"]["final_norm"], NORM_AXES),
        head=ready(params["head"]["kernel"], HEAD_AXES),
    )


def unstack(
    stacked: Float[Array, "layers ..."], axes: tuple[str, ...], config: ModelConfig, mesh: Mesh | None
) -> tuple[Float[Array, "..."], ...]:
    """Returns one kind of weight of each layer as decoding reads it, from those of all layers stacked on axis 0."""
    # Cast before it is taken apart: one pass over the stack, and what is gathered is of the compute dtype.
    layers = jnp.unstack(stacked.astype(config.compute_dtype))
    return tuple(constrain(weight, mesh, axes, weight_rules(config)) for weight in layers)


def by_layer(weights: Mapping[str, Sequence[Array]]) -> tuple[LayerWeights, ...]:
    """Returns the weights of each layer, from the layers of each weight."""
    return tuple(dict(zip(weights, layer, strict=True)) for layer in zip(*weights.values(), strict=True))


def constrain_cache(cache: KVCache, mesh: Mesh | None) -> KVCache:
    """Pins the cache's split over the mesh: rows as a batch, heads as the weights that make them."""
    return cache.replace(
        keys=tuple(constrain(keys, mesh, KEY_AXES) for keys in cache.keys),
        values=tuple(constrain(values, mesh, VALUE_AXES) for values in cache.values),
        positions=constrain(cache.positions, mesh, ("batch", "slots")),
    )


def continue_prompts(
    hidden: Float[Array, "prompts dim"], cache: KVCache, rows: Int[Array, "batch"], mesh: Mesh | None
) -> tuple[Float[Array, "batch dim"], KVCache]:
    """Of each row the prompt's state and cache, several rows of one prompt; on a mesh nothing is communicated.

    Args:
      hidden, cache: of the prompts.
      rows: which prompt each row continues, counted among those that lie on the row's own devices.
      mesh: over which both are split.
    """

    def take(hidden, cache, rows):
        return hidden[rows], take_rows(cache, rows)

    if mesh is None:
        return take(hidden, cache, rows)
    own = partition_spec(("batch", None)), _cache_specs(cache)
    in_specs = (*own, partition_spec(("batch",)))
    return jax.shard_map(take, mesh=mesh, in_specs=in_specs, out_specs=own)(hidden, cache, rows)


def _cache_specs(cache: KVCache) -> KVCache:
    """How each array of a cache is split."""
    return KVCache(
        keys=(partition_spec(KEY_AXES),) * len(cache.keys),
        values=(partition_spec(VALUE_AXES),) * len(cache.values),
        positions=partition_spec(("batch", "slots")),
        index=PartitionSpec(),
    )


def logits(weights: DecodingWeights, hidden: Float[Array, "*batch dim"]) -> Float[Array, "*batch vocab"]:
    """Float32 logits of hidden states."""
    return jnp.matmul(hidden, weights.head, preferred_element_type=jnp.float32)


def prefill(
    weights: DecodingWeights,
    tokens: Int[Array, "batch length"],
    positions: Int[Array, "batch length"],
    slots: int,
    config: ModelConfig,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "batch length dim"], KVCache]:
    """Takes in whole prompts: their hidden states, and a new cache of `slots` >= length that holds them.

    Args:
      tokens: one prompt a row, padded at the end.
      positions: 0, 1, ... along each prompt and -1 at padding, which is attended by no token of a prompt.
    """
    x = embed(weights.embedding, tokens, mesh, weight_rules(config))
    rope = rotation(positions, config.head_dim, config.rope_theta)
    segment_ids = (positions >= 0).astype(jnp.int32)
    whole, spare = (0, 0), (0, slots - tokens.shape[1])
    keys, values = [], []
    for layer in weights.layers:
        q, k, v = queries_keys_values(layer, x, rope, config, mesh)
        x = output_and_mlp(layer, x, attention(q, k, v, segment_ids, config.attention, mesh), config, mesh)
        keys.append(jnp.pad(_key_slots(k), (whole, whole, whole, spare)))
        values.append(jnp.pad(_value_slots(v), (whole, whole, spare, whole)))
    cache_positions = jnp.pad(positions, (whole, spare), constant_values=-1)
    cache = KVCache(tuple(keys), tuple(values), cache_positions, jnp.asarray(tokens.shape[1], jnp.int32))
    return rms_norm(x, weights.final_norm, config.norm_eps), constrain_cache(cache, mesh)


def decode(
    weights: DecodingWeights,
    tokens: Int[Array, "batch length"],
    positions: Int[Array, "batch length"],
    cache: KVCache,
    config: ModelConfig,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "batch length dim"], KVCache]:
    """Takes in tokens that follow those in the cache: their hidden states and the cache with them.

    Args:
      tokens: usually one a row.
      positions: each token's position in its sequence; -1 for a token that no one is to attend to.
      cache: with at least `length` free slots; beyond the last slot the newest tokens are overwritten, unnoticed.
    """
    x = embed(weights.embedding, tokens, mesh, weight_rules(config))
    rope = rotation(positions, config.head_dim, config.rope_theta)
    seen = jax.lax.dynamic_update_slice(cache.positions, positions, (0, cache.index))
    mask = (seen[:, None, :] >= 0) & (seen[:, None, :] <= positions[:, :, None])
    # For a product with one vector the compiler for TPUs puts the keys' heads along its 128 lanes: for 7b's 32 that is
    # four times the memory. For a product with two it leaves them as they are.
    least_group = 2 if program_device(mesh).platform == "tpu" else 1
    keys, values = list(cache.keys), list(cache.values)
    for number, layer in enumerate(weights.layers):
        q, k, v = queries_keys_values(layer, x, rope, config, mesh)
        keys[number] = jax.lax.dynamic_update_slice(keys[number], _key_slots(k), (0, 0, 0, cache.index))
        values[number] = jax.lax.dynamic_update_slice(values[number], _value_slots(v), (0, 0, cache.index, 0))
        attended = cached_attention(q, keys[number], values[number], mask, least_group)
        x = output_and_mlp(layer, x, attended, config, mesh)
    cache = KVCache(tuple(keys), tuple(values), seen, cache.index + tokens.shape[1])
    return rms_norm(x, weights.final_norm, config.norm_eps), constrain_cache(cache, mesh)


def _key_slots(k: Float[Array, "batch length kv_heads head_dim"]) -> Float[Array, "batch kv_heads head_dim length"]:
    return k.transpose(0, 2, 3, 1)


def _value_slots(v: Float[Array, "batch length kv_heads head_dim"]) -> Float[Array, "batch kv_heads length head_dim"]:
    return v.transpose(0, 2, 1, 3)
