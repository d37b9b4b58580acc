"""Attention in plain JAX, for every platform, shape and dtype.

Scores are computed for a chunk of queries at a time. Their weights are kept for the backward pass, which is written by
hand: JAX's own derivative reads them more often, and took half as long again on the CPU. Under a rematerialisation
policy they are recomputed instead. Decoding's attention over the KV cache is here too: with one query a row there is
nothing for a kernel to gain.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

# Large but finite: a row of scores that is masked everywhere (padding) stays finite under the softmax.
MASKED = -1e30

# At most this many chunks of queries, each of at least this many tokens. A chunk reads only the keys at or before its
# last query, so that nearly half of the work, the part above the diagonal, is skipped.
MAX_CHUNKS, MIN_CHUNK = 8, 64


@jax.custom_vjp
def attention(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    v: Float[Array, "rows length kv_heads head_dim"],
    segment_ids: Int[Array, "rows length"],
) -> Float[Array, "rows length heads head_dim"]:
    """Computes attention by the contract of models/attention.py."""
    return _forward(q, k, v, segment_ids)[0]


def _forward(q, k, v, segment_ids):
    """Returns the result and the residuals for the backward pass.

    The weights are unnormalised: the softmax's division is applied to the result, which has fewer elements.
    """
    q, k, v = _by_head(q * q.shape[-1] ** -0.5, k.shape[2]), k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    outputs, weights, sums = [], [], []
    for start, stop in query_chunks(q.shape[3]):
        causal = jnp.arange(start, stop)[:, None] >= jnp.arange(stop)[None, :]
        mask = causal & (segment_ids[:, start:stop, None] == segment_ids[:, None, :stop])
        scores = jnp.einsum(
            "bkgqd,bksd->bkgqs", q[:, :, :, start:stop], k[:, :, :stop], preferred_element_type=jnp.float32
        )
        scores = jnp.where(mask[:, None, None], scores, MASKED)
        chunk = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
        sums.append(jnp.sum(chunk, axis=-1, keepdims=True))
        weights.append(chunk.astype(v.dtype))
        out = jnp.einsum("bkgqs,bksd->bkgqd", weights[-1], v[:, :, :stop], preferred_element_type=jnp.float32)
        outputs.append(out / sums[-1])
    out = checkpoint_name(jnp.concatenate(outputs, axis=3).astype(v.dtype), "attention")
    return _by_token(out), (q, k, v, out, weights, sums)


def _backward(saved, cotangent):
    """Returns the gradients; each chunk's weights are read three times, its scores' gradient is made in one pass.

    With p = w / sum, the gradient of a score is p (dp - sum(p dp)). That sum over the keys equals the sum of the result
    times its gradient over the head's dimension (Dao et al. 2022, appendix B.2).
    """
    q, k, v, out, weights, sums = saved
    cotangent, of_q, of_k, of_v = _by_head(cotangent, k.shape[1]), [], [], []
    for (start, stop), w, total in zip(query_chunks(q.shape[3]), weights, sums, strict=True):
        divided = cotangent[:, :, :, start:stop] / total
        common = jnp.sum(divided * out[:, :, :, start:stop], axis=-1, keepdims=True)
        divided = divided.astype(v.dtype)
        of_w = jnp.einsum("bkgqd,bksd->bkgqs", divided, v[:, :, :stop], preferred_element_type=jnp.float32)
        of_scores = (w * (of_w - common)).astype(k.dtype)
        of_q.append(jnp.einsum("bkgqs,bksd->bkgqd", of_scores, k[:, :, :stop], preferred_element_type=jnp.float32))
        products = (("bkgqs,bkgqd->bksd", of_scores, q[:, :, :, start:stop]), ("bkgqs,bkgqd->bksd", w, divided))
        for gradients, product in zip((of_k, of_v), products, strict=True):
            gradient = jnp.einsum(*product, preferred_element_type=jnp.float32)
            gradients.append(jnp.pad(gradient, ((0, 0), (0, 0), (0, k.shape[2] - stop), (0, 0))))
    of_q = jnp.concatenate(of_q, axis=3) * q.shape[-1] ** -0.5
    of_k, of_v = (sum(gradients).transpose(0, 2, 1, 3) for gradients in (of_k, of_v))
    return _by_token(of_q).astype(q.dtype), of_k.astype(k.dtype), of_v.astype(v.dtype), None


attention.defvjp(_forward, _backward)


def query_chunks(length: int) -> list[tuple[int, int]]:
    """Returns the start and the end of each chunk of queries."""
    chunk = max(MIN_CHUNK, -(-length // MAX_CHUNKS))
    return [(start, min(start + chunk, length)) for start in range(0, length, chunk)]


def cached_attention(
    q: Float[Array, "batch queries heads head_dim"],
    keys: Float[Array, "batch kv_heads head_dim slots"],
    values: Float[Array, "batch kv_heads slots head_dim"],
    mask: Bool[Array, "batch queries slots"],
    min_group: int = 1,
) -> Float[Array, "batch queries heads head_dim"]:
    """Returns softmax(q k^T / sqrt(head_dim)) v over the masked slots of a KV cache; the softmax in float32.

    Args:
      q: one query a row in decoding, a block of a prompt in chat.
      keys, values: of a KV cache.
      mask: true at the slots that each query attends to.
      min_group: a key-value head with a single query is padded to this many with queries of zeros.
    """
    q = _by_head(q * q.shape[-1] ** -0.5, keys.shape[1])
    group = q.shape[2]
    if group * q.shape[3] == 1 < min_group:
        q = jnp.pad(q, ((0, 0), (0, 0), (0, min_group - 1), (0, 0), (0, 0)))
    scores = jnp.einsum("bkgqd,bkds->bkgqs", q, keys, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, MASKED), axis=-1).astype(values.dtype)
    # The compiler may turn the product for one query into a sum over the slots, for which bfloat16 is too coarse.
    out = jnp.einsum("bkgqs,bksd->bkgqd", weights, values, preferred_element_type=jnp.float32)
    return _by_token(out[:, :, :group].astype(values.dtype))


def branched_attention(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    v: Float[Array, "rows length kv_heads head_dim"],
    segment_ids: Int[Array, "rows length"],
    branches: Int[Array, "rows length"],
    prefix: tuple[Array, Array, Bool[Array, " slots"]] | None,
) -> Float[Array, "rows length heads head_dim"]:
    """Returns the attention of texts that branch, with the masks of models/branching.py; not to be differentiated.

    Args:
      q, k, v, segment_ids: of packed texts.
      branches: 0 in contexts, 1, 2, ... in their branches.
      prefix: keys [kv_heads, head_dim, slots], values [kv_heads, slots, head_dim] and which slots have a token; all
        queries attend to them. No row has a copy of its own.
    """
    q, k, v = _by_head(q * q.shape[-1] ** -0.5, k.shape[2]), k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    outputs = []
    for start, stop in query_chunks(q.shape[3]):
        queries, seen = q[:, :, :, start:stop], branches[:, None, :stop]
        mask = jnp.arange(start, stop)[:, None] >= jnp.arange(stop)[None, :]
        mask &= segment_ids[:, start:stop, None] == segment_ids[:, None, :stop]
        mask &= (seen == 0) | (seen == branches[:, start:stop, None])
        scores = jnp.einsum("bkgqd,bksd->bkgqs", queries, k[:, :, :stop], preferred_element_type=jnp.float32)
        scores = jnp.where(mask[:, None, None], scores, MASKED)
        largest = jnp.max(scores, axis=-1, keepdims=True)
        if prefix is not None:
            keys, values, used = prefix
            before = jnp.einsum("bkgqd,kds->kbgqs", queries, keys, preferred_element_type=jnp.float32)
            before = jnp.where(used, before, MASKED)
            largest = jnp.maximum(largest, jnp.max(before, axis=-1, keepdims=True).swapaxes(0, 1))
        # As in `_forward`, the softmax's division is applied to the result.
        weights = jnp.exp(scores - largest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        out = jnp.einsum(
            "bkgqs,bksd->bkgqd", weights.astype(v.dtype), v[:, :, :stop], preferred_element_type=jnp.float32
        )
        if prefix is not None:
            weights = jnp.exp(before - largest.swapaxes(0, 1))
            total += jnp.sum(weights, axis=-1, keepdims=True).swapaxes(0, 1)
            out += jnp.einsum(
                "kbgqs,ksd->kbgqd", weights.astype(v.dtype), values, preferred_element_type=jnp.float32
            ).swapaxes(0, 1)
        outputs.append((out / total).astype(v.dtype))
    return _by_token(jnp.concatenate(outputs, axis=3))


def _by_head(x: Array, kv_heads: int) -> Array:
    """Returns [rows, length, heads, head_dim] as [rows, kv_heads, group, length, head_dim], the products' order."""
    rows, length, _, head_dim = x.shape
    return x.reshape(rows, length, kv_heads, -1, head_dim).transpose(0, 2, 3, 1, 4)


def _by_token(x: Array) -> Array:
    """Returns [rows, kv_heads, group, length, head_dim] as [rows, length, heads, head_dim]."""
    rows, _, _, length, head_dim = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(rows, length, -1, head_dim)
