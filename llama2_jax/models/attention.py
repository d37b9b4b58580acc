"""Attention: causal, within segments, with grouped queries. The contract, and the choice among its backends.

Every backend keeps the same contract: a token attends to the tokens of its own segment at or before it in the row, and
to nothing else. Padding has segment 0 and attends among itself, which keeps it finite; nobody reads it. A backend that
can not keep this contract for the arrays at hand says so in its `refusal`, and is not run.

Each backend gives its results a name or a primitive that models/remat.py knows, so that no rematerialisation policy
but "full" runs the attention again.
"""

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from llama2_jax.models import attention_cudnn, attention_splash, attention_xla

# The kernel of each platform; everywhere else, and wherever its kernel refuses, attention is XLA's.
KERNELS = {"gpu": "cudnn", "tpu": "splash"}
REFUSALS = {"cudnn": attention_cudnn.refusal, "splash": attention_splash.refusal}

# "auto" leaves shorter rows to XLA: their scores are few, and a kernel's smallest block is this long.
KERNELS_FROM = 128


def attention(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    v: Float[Array, "rows length kv_heads head_dim"],
    segment_ids: Int[Array, "rows length"],
    backend: str,
    mesh: Mesh | None = None,
) -> Float[Array, "rows length heads head_dim"]:
    """softmax(q k^T / sqrt(head_dim)) v, causal within segments; the softmax in float32.

    Query head h reads key and value head h // (heads // kv_heads), as repeat_interleave would have it (section A.2.1).

    Args:
      backend: "xla" runs everywhere, "cudnn" on NVIDIA GPUs, "splash" on TPUs; "auto" is the platform's kernel where
        it can honour these arrays, else "xla".
      mesh: the devices, where there are several: rows are split over data and fsdp, heads over tensor.

    Raises:
      ValueError: for an unknown backend, or one that can not run here or can not honour these arrays.
    """
    chosen = choose_backend(backend, q, k, mesh)
    if chosen == "splash":
        return attention_splash.attention(q, k, v, segment_ids, mesh)
    if chosen == "cudnn":
        return attention_cudnn.attention(q, k, v, segment_ids, mesh)
    return attention_xla.attention(q, k, v, segment_ids)


def choose_backend(
    backend: str,
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    mesh: Mesh | None = None,
) -> str:
    """The backend that `attention` runs for these arrays, of which only shapes and dtypes are read.

    Raises:
      ValueError: see `attention`.
    """
    device = program_device(mesh)
    if backend == "auto":
        kernel = KERNELS.get(device.platform)
        fits = kernel and q.shape[1] >= KERNELS_FROM and REFUSALS[kernel](q, k, mesh, device) is None
        return kernel if fits else "xla"
    if backend == "xla":
        return backend
    if backend not in REFUSALS:
        raise ValueError(f"unknown attention backend {backend!r}; known are auto, xla, {', '.join(REFUSALS)}.")
    refusal = REFUSALS[backend](q, k, mesh, device)
    if refusal:
        raise ValueError(f"model.attention={backend!r} {refusal}; or set model.attention to 'auto' or 'xla'.")
    return backend


def program_device(mesh: Mesh | None) -> jax.Device:
    """One of the devices that the program is for: those of the mesh may be of a slice that is not here."""
    return jax.devices()[0] if mesh is None else mesh.devices.flat[0]
