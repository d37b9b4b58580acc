"""The network over texts that branch: a context and its continuations in one row, each of which sees the context and
itself ("tree attention", Cai et al. 2024, section 3.2). All may follow a prefix that was read before.
"""

from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from llama2_jax.models.attention_xla import branched_attention
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.decoding import DecodingWeights, weight_rules
from llama2_jax.models.kv_cache import KVCache
from llama2_jax.models.layer import embed, output_and_mlp, queries_keys_values, rms_norm
from llama2_jax.models.rope import rotation
from llama2_jax.sharding.axes import constrain


def branched_states(
    weights: DecodingWeights,
    tokens: Int[Array, "rows length"],
    positions: Int[Array, "rows length"],
    segment_ids: Int[Array, "rows length"],
    branches: Int[Array, "rows length"],
    prefix: KVCache | None,
    config: ModelConfig,
    mesh: Mesh | None = None,
) -> Float[Array, "rows length dim"]:
    """Returns the hidden states of packed texts that branch.

    Args:
      weights: the model's, as decoding reads them.
      tokens: texts, one after another; of each text its context and behind it its branches.
      positions: of each token in its own text, the prefix included: branches of one context have the same ones.
      segment_ids: 1, 2, ... for the texts of a row; 0 at padding.
      branches: 0 in contexts and 1, 2, ... in their branches. A token attends to those at or before it in the row that
        have its own segment, and branch 0 or its own branch.
      prefix: the cache of tokens before all texts, of which the first row is read; None if there are none.
    """
    x = embed(weights.embedding, tokens, mesh, weight_rules(config))
    rope = rotation(positions, config.head_dim, config.rope_theta)
    for index, layer in enumerate(weights.layers):
        q, k, v = queries_keys_values(layer, x, rope, config, mesh)
        before = None
        if prefix is not None:
            keys = constrain(prefix.keys[index][0], mesh, ("kv_heads", "head_dim", "slots"))
            values = constrain(prefix.values[index][0], mesh, ("kv_heads", "slots", "head_dim"))
            before = keys, values, prefix.positions[0] >= 0
        attended = branched_attention(q, k, v, segment_ids, branches, before)
        x = output_and_mlp(layer, x, attended, config, mesh)
    return rms_norm(x, weights.final_norm, config.norm_eps)
