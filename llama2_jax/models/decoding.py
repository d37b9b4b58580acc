"""The network for generation: prefill of whole prompts, then decoding of one token a step with a KV cache.

Always unrolled over the layers, each with its own cache arrays. The layers' weights are unstacked and cast to the
compute dtype before the loop and not at every step; see inference/consolidation.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from llama2_jax.models.adapters import Weight, map_weight
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
from llama2_jax.models.weights import cast_floats
from llama2_jax.sharding.axes import GATHERED, RULES, Rules, constrain, partition_spec

KEY_AXES, VALUE_AXES = ("batch", "kv_heads", "head_dim", "slots"), ("batch", "kv_heads", "slots", "head_dim")


@flax.struct.dataclass
class DecodingWeights:
    """A language model's parameters in the compute dtype, one entry a layer."""

    embedding: Float[Array, "vocab dim"]
    layers: tuple[LayerWeights, ...]
    final_norm: Float[Array, " dim"]
    head: Float[Array, "dim vocab"]


def weight_rules(config: ModelConfig) -> Rules:
    """Returns how the weights are split over a mesh: consolidated, or as in training."""
    return GATHERED if config.consolidate_weights else RULES


def weight_shardings(config: ModelConfig, mesh: Mesh, layers: Sequence[LayerWeights] = ()) -> DecodingWeights:
    """Returns the sharding of each weight, of the layers for those that are given (arrays or their shapes)."""

    def sharding(axes: Sequence[str | None]) -> NamedSharding:
        return NamedSharding(mesh, partition_spec(axes, weight_rules(config)))

    of_layers = tuple(
        {name: map_weight(lambda _, axes: sharding(axes), one, LAYER_AXES[name]) for name, one in weights.items()}
        for weights in layers
    )
    return DecodingWeights(sharding(EMBEDDING_AXES), of_layers, sharding(NORM_AXES), sharding(HEAD_AXES))


def decoding_weights(params: dict[str, Any], config: ModelConfig, mesh: Mesh | None = None) -> DecodingWeights:
    """Returns a language model's parameters as decoding reads them; inside a compiled program."""

    def cast(weight: Array, axes: tuple[str, ...]) -> Array:
        return constrain(weight.astype(config.compute_dtype), mesh, axes, weight_rules(config))

    stacks = params["trunk"]["layers"].items()
    return DecodingWeights(
        embedding=cast(params["trunk"]["embedding"], EMBEDDING_AXES),
        layers=by_layer({name: unstack(stack, LAYER_AXES[name], config, mesh) for name, stack in stacks}),
        final_norm=cast(params["trunk"]["final_norm"], NORM_AXES),
        head=cast(params["head"]["kernel"], HEAD_AXES),
    )


def unstack(stacked: Weight, axes: tuple[str, ...], config: ModelConfig, mesh: Mesh | None) -> tuple[Weight, ...]:
    """Returns one kind of weight of each layer as decoding reads it, from those of all layers stacked on axis 0.

    An adapted matrix stays one: in 16 bits its sum would lose what the adapter adds to it. One in few bits stays so
    too, since a step reads all weights.
    """

    def unstacked(stack: Float[Array, "layers ..."], axes: Sequence[str | None]) -> list[Float[Array, "..."]]:
        # Cast before unstacking: one pass over the stack, and the weights are gathered in the compute dtype.
        layers = jnp.unstack(cast_floats(stack, config.compute_dtype))
        return [constrain(weight, mesh, axes, weight_rules(config)) for weight in layers]

    split = map_weight(unstacked, stacked, axes)
    return tuple(
        jax.tree.map(lambda layers, index=index: layers[index], split, is_leaf=lambda one: isinstance(one, list))
        for index in range(config.layers)
    )


def by_layer(weights: Mapping[str, Sequence[Weight]]) -> tuple[LayerWeights, ...]:
    """Returns the weights of each layer, from the layers of each weight."""
    return tuple(dict(zip(weights, layer, strict=True)) for layer in zip(*weights.values(), strict=True))


def constrain_cache(cache: KVCache, mesh: Mesh | None) -> KVCache:
    """Pins the cache's split over the mesh: rows like a batch, heads like the weights that compute them."""
    return cache.replace(
        keys=tuple(constrain(keys, mesh, KEY_AXES) for keys in cache.keys),
        values=tuple(constrain(values, mesh, VALUE_AXES) for values in cache.values),
        positions=constrain(cache.positions, mesh, ("batch", "slots")),
    )


def continue_prompts(
    hidden: Float[Array, "prompts dim"], cache: KVCache, rows: Int[Array, " batch"], mesh: Mesh | None
) -> tuple[Float[Array, "batch dim"], KVCache]:
    """Returns the state and cache of each row's prompt; rows may share one. On a mesh nothing is communicated.

    Args:
      hidden, cache: of the prompts.
      rows: for each row the index of its prompt among the prompts on the same devices.
      mesh: over which both are split.
    """

    def take(hidden, cache, rows):
        return hidden[rows], take_rows(cache, rows)

    if mesh is None:
        return take(hidden, cache, rows)
    specs = partition_spec(("batch", None)), _cache_specs(cache)
    in_specs = (*specs, partition_spec(("batch",)))
    return jax.shard_map(take, mesh=mesh, in_specs=in_specs, out_specs=specs)(hidden, cache, rows)


def _cache_specs(cache: KVCache) -> KVCache:
    """Returns the partition spec of each array of a cache."""
    return KVCache(
        keys=(partition_spec(KEY_AXES),) * len(cache.keys),
        values=(partition_spec(VALUE_AXES),) * len(cache.values),
        positions=partition_spec(("batch", "slots")),
        index=PartitionSpec(),
    )


def logits(weights: DecodingWeights, hidden: Float[Array, "*batch dim"]) -> Float[Array, "*batch vocab"]:
    """Returns float32 logits of hidden states."""
    return jnp.matmul(hidden, weights.head, preferred_element_type=jnp.float32)


def prefill(
    weights: DecodingWeights,
    tokens: Int[Array, "batch length"],
    positions: Int[Array, "batch length"],
    slots: int,
    config: ModelConfig,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "batch length dim"], KVCache]:
    """Runs whole prompts and returns their hidden states and a new cache with `slots` >= length slots.

    Args:
      tokens: one prompt a row, padded at the end.
      positions: 0, 1, ... along each prompt and -1 at padding, to which no token of a prompt attends.
    """
    x = embed(weights.embedding, tokens, mesh, weight_rules(config))
    rope = rotation(positions, config.head_dim, config.rope_theta)
    segment_ids = (positions >= 0).astype(jnp.int32)
    unpadded, new_slots = (0, 0), (0, slots - tokens.shape[1])
    keys, values = [], []
    for layer in weights.layers:
        q, k, v = queries_keys_values(layer, x, rope, config, mesh)
        x = output_and_mlp(layer, x, attention(q, k, v, segment_ids, config.attention, mesh), config, mesh)
        keys.append(jnp.pad(_key_slots(k), (unpadded, unpadded, unpadded, new_slots)))
        values.append(jnp.pad(_value_slots(v), (unpadded, unpadded, new_slots, unpadded)))
    cache_positions = jnp.pad(positions, (unpadded, new_slots), constant_values=-1)
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
    """Runs tokens that follow those in the cache and returns their hidden states and the extended cache.

    Args:
      tokens: usually one a row.
      positions: each token's position in its sequence; -1 for a token to which no other attends.
      cache: with at least `length` free slots; beyond the last slot the newest tokens are silently overwritten.
    """
    x = embed(weights.embedding, tokens, mesh, weight_rules(config))
    rope = rotation(positions, config.head_dim, config.rope_theta)
    cache_positions = jax.lax.dynamic_update_slice(cache.positions, positions, (0, cache.index))
    mask = (cache_positions[:, None, :] >= 0) & (cache_positions[:, None, :] <= positions[:, :, None])
    # For a product with one vector the TPU compiler puts the keys' heads along its 128 lanes, which takes four times
    # the memory for 7b's 32 heads. For a product with two vectors it keeps the layout.
    min_group = 2 if program_device(mesh).platform == "tpu" else 1
    keys, values = list(cache.keys), list(cache.values)
    for index, layer in enumerate(weights.layers):
        q, k, v = queries_keys_values(layer, x, rope, config, mesh)
        keys[index] = jax.lax.dynamic_update_slice(keys[index], _key_slots(k), (0, 0, 0, cache.index))
        values[index] = jax.lax.dynamic_update_slice(values[index], _value_slots(v), (0, 0, cache.index, 0))
        attended = cached_attention(q, keys[index], values[index], mask, min_group)
        x = output_and_mlp(layer, x, attended, config, mesh)
    cache = KVCache(tuple(keys), tuple(values), cache_positions, cache.index + tokens.shape[1])
    return rms_norm(x, weights.final_norm, config.norm_eps), constrain_cache(cache, mesh)


def _key_slots(k: Float[Array, "batch length kv_heads head_dim"]) -> Float[Array, "batch kv_heads head_dim length"]:
    return k.transpose(0, 2, 3, 1)


def _value_slots(v: Float[Array, "batch length kv_heads head_dim"]) -> Float[Array, "batch kv_heads length head_dim"]:
    return v.transpose(0, 2, 1, 3)
