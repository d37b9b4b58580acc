"""Splash attention, the kernel for TPUs: blocks that the causal mask empties are never computed.

The kernel is JAX's own (jax.experimental.pallas.ops.tpu.splash_attention). It keeps neither scores nor weights: the
backward pass recomputes them from queries, keys, values, the result and each row's log-sum-exp. The last two carry the
name "attention" for models/remat.py.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from llama2_jax.models.attention_by_device import by_device, uneven

# The kernel's blocks are multiples of BLOCK_STEP tokens. The largest size here fits every TPU's fast memory with the
# compiler's default settings. Larger blocks are read fewer times from slow memory.
BLOCK_STEP, BLOCK_SIZES = 128, (512, 384, 256, 128)


def refusal(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    mesh: Mesh | None,
    device: jax.Device,
) -> str | None:
    """Returns why this backend does not support these arrays on this device, or None if it does."""
    if device.platform != "tpu":
        return f"needs a TPU, and this is {device.platform}: run on a TPU"
    if q.dtype not in (jnp.bfloat16, jnp.float32):
        return f"computes in bfloat16 or float32, not {q.dtype}: set model.compute_dtype"
    return uneven(q, k, mesh)


def attention(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    v: Float[Array, "rows length kv_heads head_dim"],
    segment_ids: Int[Array, "rows length"],
    mesh: Mesh | None = None,
    interpret: bool = False,
) -> Float[Array, "rows length heads head_dim"]:
    """Computes attention by the contract of models/attention.py.

    Args:
      interpret: run the kernel in Pallas's interpreter, slowly, on any platform: for tests.
    """
    return by_device(functools.partial(_attention_on_device, interpret=interpret), mesh)(q, k, v, segment_ids)


def block_size(length: int) -> int:
    """Returns the largest block size that divides the length, a multiple of BLOCK_STEP."""
    return next(size for size in BLOCK_SIZES if length % size == 0)


def _attention_on_device(q: Array, k: Array, v: Array, segment_ids: Array, *, interpret: bool) -> Array:
    length = q.shape[1]
    # Padding is added at the end of the rows, where the causal mask hides it from the tokens.
    padding = -length % BLOCK_STEP
    q, k, v = (_by_head(x, padding) for x in (q * q.shape[-1] ** -0.5, k, v))
    segment_ids = jnp.pad(segment_ids, ((0, 0), (0, padding)))
    kernel = _kernel(q.shape[1], length + padding, interpret)
    out = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, kernels.SegmentIds(ids, ids)))(q, k, v, segment_ids)
    return out.transpose(0, 2, 1, 3)[:, :length]


def _by_head(x: Array, padding: int) -> Array:
    """Returns [rows, length, heads, head_dim] as [rows, heads, length + padding, head_dim], the kernel's order."""
    return jnp.pad(x.transpose(0, 2, 1, 3), ((0, 0), (0, 0), (0, padding), (0, 0)))


def _kernel(heads: int, length: int, interpret: bool) -> kernels.SplashAttentionKernel:
    block = block_size(length)
    return kernels.make_splash_mha(
        masks.MultiHeadMask([masks.CausalMask((length, length))] * heads),
        block_sizes=kernels.BlockSizes(
            block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
        ),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name="attention",
        interpret=interpret,
    )
