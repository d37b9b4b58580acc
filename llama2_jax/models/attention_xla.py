"""Attention written in plain JAX: it runs everywhere and takes every shape and dtype.

Scores are made for a chunk of queries at a time and kept for the backward pass, unless a rematerialisation policy has
them made again. Decoding's attention over the KV cache is here too: one query a row leaves nothing to a kernel.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

# Large and finite: a row of scores that is masked everywhere (padding) stays finite under the softmax.
MASKED = -1e30

# Queries are taken in this many chunks at most, and in chunks of at least this many tokens: each chunk reads only the
# keys at or before its last query, so that near half of the work, the part above the diagonal, is never done.
MAX_CHUNKS, MIN_CHUNK = 8, 128


def attention(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    v: Float[Array, "rows length kv_heads head_dim"],
    segment_ids: Int[Array, "rows length"],
) -> Float[Array, "rows length heads head_dim"]:
    """See models/attention.py."""
    length = q.shape[1]
    chunk = max(MIN_CHUNK, -(-length // MAX_CHUNKS))
    q, k, v = _by_head(q, k.shape[2]), k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    outputs = []
    for start in range(0, length, chunk):
        stop = min(start + chunk, length)
        causal = jnp.arange(start, stop)[:, None] >= jnp.arange(stop)[None, :]
        mask = causal & (segment_ids[:, start:stop, None] == segment_ids[:, None, :stop])
        outputs.append(_masked(q[:, :, :, start:stop], k[..., :stop], v[:, :, :stop], mask))
    return checkpoint_name(_by_token(jnp.concatenate(outputs, axis=3)), "attention")


def cached_attention(
    q: Float[Array, "batch queries heads head_dim"],
    keys: Float[Array, "batch kv_heads head_dim slots"],
    values: Float[Array, "batch kv_heads slots head_dim"],
    mask: Bool[Array, "batch queries slots"],
) -> Float[Array, "batch queries heads head_dim"]:
    """softmax(q k^T / sqrt(head_dim)) v over the slots of a KV cache where the mask is true; the softmax in float32."""
    return _by_token(_masked(_by_head(q, keys.shape[1]), keys, values, mask))


def _masked(
    q: Float[Array, "rows kv_heads group queries head_dim"],
    k: Float[Array, "rows kv_heads head_dim keys"],
    v: Float[Array, "rows kv_heads keys head_dim"],
    mask: Bool[Array, "rows queries keys"],
) -> Float[Array, "rows kv_heads group queries head_dim"]:
    q = q * q.shape[-1] ** -0.5
    scores = jnp.einsum("bkgqd,bkds->bkgqs", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, MASKED), axis=-1).astype(v.dtype)
    return jnp.einsum("bkgqs,bksd->bkgqd", weights, v)


def _by_head(x: Array, kv_heads: int) -> Array:
    """[rows, length, heads, head_dim] as [rows, kv_heads, group, length, head_dim], the order of the products."""
    rows, length, _, head_dim = x.shape
    return x.reshape(rows, length, kv_heads, -1, head_dim).transpose(0, 2, 3, 1, 4)


def _by_token(x: Array) -> Array:
    """[rows, kv_heads, group, length, head_dim] as [rows, length, heads, head_dim]."""
    rows, _, _, length, head_dim = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(rows, length, -1, head_dim)
