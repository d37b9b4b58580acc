"""cuDNN's flash attention, for NVIDIA GPUs and bfloat16.

cuDNN's own layout for packed rows is not in JAX's public interface, and no private one is used here: segments are
passed as a mask. Causality is cuDNN's own, which skips the blocks above the diagonal; the mask is a bias of
[rows, 1, length, length] in bfloat16 (32 MiB a row of 4096), which all heads of a row read.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from llama2_jax.models.attention_by_device import by_device, uneven

# Compute capabilities: flash attention takes a head_dim of up to 128 on Ampere, up to 256 on Hopper and later.
AMPERE, HOPPER = (8, 0), (9, 0)


def refusal(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    mesh: Mesh | None,
    device: jax.Device,
) -> str | None:
    """Returns why this backend does not support these arrays on this device, or None if it does."""
    # GPUs of other vendors have no compute capability, or one in another format.
    capability = _parse_capability(getattr(device, "compute_capability", ""))
    if device.platform != "gpu" or capability is None:
        return f"needs an NVIDIA GPU, and this is {device.platform} ({device.device_kind}): run on an NVIDIA GPU"
    if capability < AMPERE:
        return f"needs compute capability 8.0 (Ampere) or later, and {device.device_kind} is older: use a newer GPU"
    if q.dtype != jnp.bfloat16:
        return f"computes in bfloat16, not {q.dtype}: set model.compute_dtype to 'bfloat16'"
    length, head_dim, max_head_dim = q.shape[1], q.shape[3], 256 if capability >= HOPPER else 128
    if head_dim % 8 or head_dim > max_head_dim:
        return (
            f"takes a head size (model.dim / model.heads) that is a multiple of 8 up to {max_head_dim} on "
            f"{device.device_kind}, not {head_dim}: choose other model.heads"
        )
    if length % 2:
        return f"takes rows of an even length, not {length}: choose an even length"
    return uneven(q, k, mesh)


def attention(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    v: Float[Array, "rows length kv_heads head_dim"],
    segment_ids: Int[Array, "rows length"],
    mesh: Mesh | None = None,
) -> Float[Array, "rows length heads head_dim"]:
    """Computes attention by the contract of models/attention.py."""
    return by_device(_attention_on_device, mesh)(q, k, v, segment_ids)


def _attention_on_device(q: Array, k: Array, v: Array, segment_ids: Array) -> Array:
    same_segment = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return jax.nn.dot_product_attention(q, k, v, mask=same_segment, is_causal=True, implementation="cudnn")


def _parse_capability(capability: str) -> tuple[int, ...] | None:
    """Returns (9, 0) for "9.0", and None for text in another format."""
    parts = str(capability).split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else None
