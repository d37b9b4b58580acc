"""Causal attention within segments, with grouped queries: the contract and the choice of a backend.

Every backend keeps the same contract: a token attends to the tokens of its own segment at or before it in the row, and
to nothing else. Padding has segment 0 and attends to itself, which keeps it finite; its result is not used. A backend
that cannot keep this contract for the given arrays says so in its `refusal`, and is not run.

Each backend marks its results with a name or a primitive that models/remat.py knows, so that no rematerialisation
policy except "full" recomputes the attention.
"""

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from llama2_jax.models import attention_cudnn, attention_splash, attention_xla

# The kernel of each platform. On other platforms, and for arrays that the kernel refuses, "auto" takes XLA.
KERNELS = {"gpu": "cudnn", "tpu": "splash"}
REFUSALS = {"cudnn": attention_cudnn.refusal, "splash": attention_splash.refusal}

# "auto" takes XLA for shorter rows: they have few scores, and a kernel's smallest block is this long.
MIN_KERNEL_LENGTH = 128


def attention(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    v: Float[Array, "rows length kv_heads head_dim"],
    segment_ids: Int[Array, "rows length"],
    backend: str,
    mesh: Mesh | None = None,
) -> Float[Array, "rows length heads head_dim"]:
    """Returns softmax(q k^T / sqrt(head_dim)) v, causal within segments; the softmax in float32.

    Query head h reads key and value head h // (heads // kv_heads), as with repeat_interleave (section A.2.1).

    Args:
      backend: "xla" runs everywhere, "cudnn" on NVIDIA GPUs, "splash" on TPUs; "auto" is the platform's kernel if it
        supports these arrays, else "xla".
      mesh: the devices, if there are several: rows are split over data and fsdp, heads over tensor.

    Raises:
      ValueError: if the backend is unknown, cannot run on this platform or does not support these arrays.
    """
    backend = choose_backend(backend, q, k, mesh)
    if backend == "splash":
        return attention_splash.attention(q, k, v, segment_ids, mesh)
    if backend == "cudnn":
        return attention_cudnn.attention(q, k, v, segment_ids, mesh)
    return attention_xla.attention(q, k, v, segment_ids)


def choose_backend(
    backend: str,
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    mesh: Mesh | None = None,
) -> str:
    """Returns the backend that `attention` runs for these arrays; only their shapes and dtypes are read.

    Raises:
      ValueError: as `attention`.
    """
    device = program_device(mesh)
    if backend == "auto":
        kernel = KERNELS.get(device.platform)
        supported = kernel and q.shape[1] >= MIN_KERNEL_LENGTH and REFUSALS[kernel](q, k, mesh, device) is None
        return kernel if supported else "xla"
    if backend == "xla":
        return backend
    if backend not in REFUSALS:
        raise ValueError(f"unknown attention backend {backend!r}; known are auto, xla, {', '.join(REFUSALS)}.")
    refusal = REFUSALS[backend](q, k, mesh, device)
    if refusal:
        raise ValueError(f"model.attention={backend!r} {refusal}; or set model.attention to 'auto' or 'xla'.")
    return backend


def program_device(mesh: Mesh | None) -> jax.Device:
    """Returns one of the devices that the program is compiled for, which may belong to a slice that is not attached."""
    return jax.devices()[0] if mesh is None else mesh.devices.flat[0]
