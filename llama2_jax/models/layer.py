"""One transformer layer as pure functions of its weights: norm, attention, norm, SwiGLU (section 2.2).

The same functions serve the scanned, the unrolled and the decoding network, so the three can not drift apart.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from llama2_jax.models.attention import attention
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.rope import Rotation, rotate
from llama2_jax.sharding.axes import constrain

LayerWeights = Mapping[str, Float[Array, "..."]]
Heads = Float[Array, "rows length heads head_dim"]
Hidden = Float[Array, "rows length dim"]

# What the backward pass keeps of a layer, for ModelConfig.remat. "dots" keeps the attention's result by its name, since
# computing it again costs more than all the rest.
REMAT = {
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names("attention"),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def rms_norm(x: Float[Array, "... dim"], scale: Float[Array, "dim"], eps: float) -> Float[Array, "... dim"]:
    """x / sqrt(mean(x^2) + eps), in float32, cast back, times the scale."""
    wide = x.astype(jnp.float32)
    normal = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    return normal.astype(x.dtype) * scale.astype(x.dtype)


def unstack_layers(stacked: LayerWeights) -> list[LayerWeights]:
    """The weights of each layer, from those of all layers stacked on axis 0."""
    apart = {name: jnp.unstack(array) for name, array in stacked.items()}
    return [dict(zip(apart, one, strict=True)) for one in zip(*apart.values(), strict=True)]


def layer(
    weights: LayerWeights,
    x: Hidden,
    turn: Rotation,
    segment_ids: Int[Array, "rows length"],
    config: ModelConfig,
    mesh: Mesh | None,
) -> Hidden:
    """The layer for training and scoring: attention within the segments of packed rows."""
    q, k, v = queries_keys_values(weights, x, turn, config, mesh)
    return finish(weights, x, attention(q, k, v, segment_ids, config.attention), config, mesh)


def queries_keys_values(
    weights: LayerWeights, x: Hidden, turn: Rotation, config: ModelConfig, mesh: Mesh | None
) -> tuple[Heads, Heads, Heads]:
    """The layer's first half: norm, projections, rotation of queries and keys."""
    normal = rms_norm(x, weights["attention_norm"], config.norm_eps)

    def project(name: str, axis: str) -> Heads:
        flat = constrain(_times(normal, weights[name]), mesh, ("batch", "length", axis))
        return flat.reshape(*x.shape[:2], -1, config.head_dim)

    q, k, v = project("query", "heads"), project("key", "kv_heads"), project("value", "kv_heads")
    return rotate(q, turn), rotate(k, turn), v


def finish(weights: LayerWeights, x: Hidden, attended: Heads, config: ModelConfig, mesh: Mesh | None) -> Hidden:
    """The layer's second half, after attention: output projection and feed-forward, each added to the residual."""
    x = x + _times(attended.reshape(*x.shape[:2], -1), weights["output"])
    x = constrain(x, mesh, ("batch", "length", None))
    normal = rms_norm(x, weights["ffn_norm"], config.norm_eps)
    gated = jax.nn.silu(_times(normal, weights["gate"])) * _times(normal, weights["up"])
    gated = constrain(gated, mesh, ("batch", "length", "ffn"))
    return constrain(x + _times(gated, weights["down"]), mesh, ("batch", "length", None))


def _times(x: Hidden, matrix: Float[Array, "inputs outputs"]) -> Hidden:
    # Rows and length as one dimension: the gradient of a product with two batch dimensions transposes its operands,
    # which takes longer on the CPU than the product.
    return (x.reshape(-1, x.shape[-1]) @ matrix.astype(x.dtype)).reshape(*x.shape[:-1], -1)
