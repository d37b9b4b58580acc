"""What a language model attends to: the largest attention over all layers and heads, as Figure 10 of Llama 2 shows it.

The layers are computed by the functions of layer.py, as in training and decoding. Next to each layer's attention, whose
kernel keeps no weights, the weights are computed again in plain JAX.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from llama2_jax.models.attention import attention
from llama2_jax.models.attention_xla import MASKED, query_chunks
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.layer import LayerWeights, computed_weights, embed, output_and_mlp, queries_keys_values
from llama2_jax.models.rope import rotation


def attention_maps(
    params: Mapping,
    tokens: Int[Array, "rows length"],
    positions: Int[Array, "rows length"],
    segment_ids: Int[Array, "rows length"],
    config: ModelConfig,
    mesh: Mesh | None = None,
) -> Float[Array, "rows length length"]:
    """Returns how much each token (second axis) attends to each (third axis): the largest over layers and heads.

    For use inside a compiled program. All heads' weights of one layer are there at a time.

    Args:
      params: a language model's.
      tokens, positions, segment_ids: as for `LanguageModel`.
      config: the network.
      mesh: as for `LanguageModel`: rows must be a multiple of data * fsdp.
    """
    trunk = params["trunk"]
    rope = rotation(positions, config.head_dim, config.rope_theta)

    def step(carry: tuple[Array, Array], stored: LayerWeights) -> tuple[tuple[Array, Array], None]:
        x, maps = carry
        weights = computed_weights(stored, config, mesh, gathered=True)
        q, k, v = queries_keys_values(weights, x, rope, config, mesh)
        x = output_and_mlp(weights, x, attention(q, k, v, segment_ids, config.attention, mesh), config, mesh)
        return (x, jnp.maximum(maps, _largest_over_heads(q, k, segment_ids))), None

    rows, length = tokens.shape
    x = embed(trunk["embedding"], tokens, mesh).astype(config.compute_dtype)
    (_, maps), _ = jax.lax.scan(step, (x, jnp.full((rows, length, length), MASKED)), trunk["layers"])
    return jnp.exp(maps)


def log_attention_weights(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    segment_ids: Int[Array, "rows length"],
    start: int = 0,
    stop: int | None = None,
) -> Float[Array, "rows heads queries keys"]:
    """Returns log softmax(q k^T / sqrt(head_dim)) by the contract of models/attention.py, in float32.

    The largest of logarithms is that of the weights, and then one exponential serves all layers and heads. With the
    miniature's model and 960 tokens the maps took 0.05 s more than the forward pass, and 0.11 s with weights.

    Args:
      q, k: queries and keys of all tokens, rotated.
      segment_ids: 0 for padding.
      start, stop: the queries whose weights are returned. The keys are those before `stop`: a token attends to no
        later one.
    """
    rows, length, heads, head_dim = q.shape
    stop = length if stop is None else stop
    queries = (q[:, start:stop] * head_dim**-0.5).reshape(rows, stop - start, k.shape[2], -1, head_dim)
    scores = jnp.einsum("bqkgd,bskd->bkgqs", queries, k[:, :stop], preferred_element_type=jnp.float32)
    causal = jnp.arange(start, stop)[:, None] >= jnp.arange(stop)[None, :]
    mask = causal & (segment_ids[:, start:stop, None] == segment_ids[:, None, :stop])
    weights = jax.nn.log_softmax(jnp.where(mask[:, None, None], scores, MASKED), axis=-1)
    return weights.reshape(rows, heads, stop - start, stop)


def _largest_over_heads(q: Array, k: Array, segment_ids: Array) -> Float[Array, "rows length length"]:
    """Returns the largest of `log_attention_weights` over heads, a chunk of queries at a time.

    A chunk has the keys at or before its last query, as in attention_xla.py.
    """
    length = q.shape[1]
    chunks = []
    for start, stop in query_chunks(length):
        largest = log_attention_weights(q, k, segment_ids, start, stop).max(axis=1)
        chunks.append(jnp.pad(largest, ((0, 0), (0, 0), (0, length - stop)), constant_values=MASKED))
    return jnp.concatenate(chunks, axis=1)
