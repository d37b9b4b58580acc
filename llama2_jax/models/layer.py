"""One transformer layer as pure functions of its weights: norm, attention, norm, SwiGLU (section 2.2).

The scanned, the unrolled and the decoding network share these functions, so the three cannot diverge. The products
carry the names by which models/remat.py keeps them for the backward pass.
"""

import types
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from llama2_jax.models.adapters import AdaptedMatrix, Weight, map_weight
from llama2_jax.models.attention import attention
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.quantized import QuantizedMatrix
from llama2_jax.models.residual_dropout import ATTENTION, MLP, ResidualDropout, drop
from llama2_jax.models.rope import Rotation, rotate
from llama2_jax.models.weights import cast_and_gather
from llama2_jax.sharding.axes import RULES, Rules, constrain

LayerWeights = Mapping[str, Weight]
Heads = Float[Array, "rows length heads head_dim"]
Hidden = Float[Array, "rows length dim"]

# The logical axes of each weight.
EMBEDDING_AXES, NORM_AXES, HEAD_AXES = ("vocab", "embed"), ("norm",), ("embed", "vocab")
LAYER_AXES: Mapping[str, tuple[str, ...]] = types.MappingProxyType({
    "attention_norm": ("norm",),
    "query": ("embed", "heads"),
    "key": ("embed", "kv_heads"),
    "value": ("embed", "kv_heads"),
    "output": ("heads", "embed"),
    "ffn_norm": ("norm",),
    "gate": ("embed", "ffn"),
    "up": ("embed", "ffn"),
    "down": ("ffn", "embed"),
})  # fmt: skip


def rms_norm(x: Float[Array, "... dim"], scale: Float[Array, " dim"], eps: float) -> Float[Array, "... dim"]:
    """Returns x / sqrt(mean(x^2) + eps), computed in float32 and cast back, times the scale."""
    x_float32 = x.astype(jnp.float32)
    normed = x_float32 * jax.lax.rsqrt(jnp.mean(jnp.square(x_float32), axis=-1, keepdims=True) + eps)
    return normed.astype(x.dtype) * scale.astype(x.dtype)


def embed(
    table: Float[Array, "vocab dim"], tokens: Int[Array, "rows length"], mesh: Mesh | None, rules: Rules = RULES
) -> Hidden:
    """Returns each token's embedding, in the table's dtype.

    If fsdp splits the table's width, each device looks up its columns for all rows; an all-to-all then exchanges
    columns for rows. Without these constraints the compiler does so on some meshes only; on others it gathers the rows
    of the whole batch on every device ("involuntary full rematerialization").
    """
    tokens = constrain(tokens, mesh, ("lookup_batch", "length"), rules)
    embedded = constrain(table[tokens], mesh, ("lookup_batch", "length", "embed"), rules)
    return constrain(embedded, mesh, ("batch", "length", "hidden"), rules)


def layer(
    weights: LayerWeights,
    x: Hidden,
    rope: Rotation,
    segment_ids: Int[Array, "rows length"],
    config: ModelConfig,
    mesh: Mesh | None,
    dropout: ResidualDropout | None = None,
) -> Hidden:
    """Applies a layer in training and scoring, with attention within the segments of packed rows."""
    # Only if the backward pass recomputes the layer: with "none" it would keep the gathered weights of all layers, so
    # there the compiler gathers them at each product.
    weights = computed_weights(weights, config, mesh, gathered=config.remat != "none")
    q, k, v = queries_keys_values(weights, x, rope, config, mesh)
    return output_and_mlp(weights, x, attention(q, k, v, segment_ids, config.attention, mesh), config, mesh, dropout)


def computed_weights(weights: LayerWeights, config: ModelConfig, mesh: Mesh | None, gathered: bool) -> LayerWeights:
    """Returns a layer's stored weights in the computation's form; see `cast_and_gather`."""

    def computed(array: Float[Array, "..."], axes: Sequence[str | None]) -> Float[Array, "..."]:
        return cast_and_gather(array, config.compute_dtype, mesh, axes, gathered)

    return {name: map_weight(computed, weight, LAYER_AXES[name]) for name, weight in weights.items()}


def queries_keys_values(
    weights: LayerWeights, x: Hidden, rope: Rotation, config: ModelConfig, mesh: Mesh | None
) -> tuple[Heads, Heads, Heads]:
    """Computes the layer's first half: norm, projections, rotation of queries and keys."""
    normed = rms_norm(x, weights["attention_norm"], config.norm_eps)

    def project(name: str, axis: str) -> Heads:
        flat = constrain(matmul(normed, weights[name]), mesh, ("batch", "length", axis))
        return flat.reshape(*x.shape[:2], -1, config.head_dim)

    q, k, v = project("query", "heads"), project("key", "kv_heads"), project("value", "kv_heads")
    return _named(rotate(q, rope), "query"), _named(rotate(k, rope), "key"), _named(v, "value")


def output_and_mlp(
    weights: LayerWeights,
    x: Hidden,
    attended: Heads,
    config: ModelConfig,
    mesh: Mesh | None,
    dropout: ResidualDropout | None = None,
) -> Hidden:
    """Computes the layer's second half: output projection and feed-forward, each added to the residual."""
    output = checkpoint_name(matmul(attended.reshape(*x.shape[:2], -1), weights["output"]), "output")
    x = x + drop(output, dropout, ATTENTION)
    x = constrain(x, mesh, ("batch", "length", "hidden"))
    normed = rms_norm(x, weights["ffn_norm"], config.norm_eps)
    gate = checkpoint_name(matmul(normed, weights["gate"]), "gate")
    gated = jax.nn.silu(gate) * checkpoint_name(matmul(normed, weights["up"]), "up")
    gated = constrain(gated, mesh, ("batch", "length", "ffn"))
    x = x + drop(matmul(gated, weights["down"]), dropout, MLP)
    return constrain(x, mesh, ("batch", "length", "hidden"))


def _named(x: Heads, name: str) -> Heads:
    """Names queries, keys or values for models/remat.py; they are kept with the heads concatenated, without gaps."""
    return checkpoint_name(x.reshape(*x.shape[:2], -1), name).reshape(x.shape)


def matmul(x: Hidden, matrix: Weight) -> Hidden:
    """Returns x @ matrix; with an adapter, x W + scale (x A) B (Hu et al. 2021, equation 3).

    One in few bits is restored for the product, and for its gradient again.
    """
    if isinstance(matrix, AdaptedMatrix):
        low_rank = matmul(matmul(matrix.adapter_inputs(x), matrix.a), matrix.b)
        return matmul(x, matrix.base) + matrix.scale * low_rank
    if isinstance(matrix, QuantizedMatrix):
        matrix = matrix.restored(x.dtype)
    # Rows and length are flattened: the gradient of a product with two batch dimensions transposes its operands, which
    # takes longer on the CPU than the product.
    return (x.reshape(-1, x.shape[-1]) @ matrix.astype(x.dtype)).reshape(*x.shape[:-1], -1)
