"""cuDNN's attention as far as it can be tested without a GPU; test_attention.py tests its numbers."""

import re
import types

import jax
import jax.numpy as jnp
import pytest

from llama2_jax.models import attention_cudnn
from llama2_jax.models.attention_cudnn import refusal

H100 = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H100", compute_capability="9.0")
A100 = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA A100", compute_capability="8.0")
V100 = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA V100", compute_capability="7.0")
MI300 = types.SimpleNamespace(platform="gpu", device_kind="AMD MI300X", compute_capability="gfx942")
CPU = types.SimpleNamespace(platform="cpu", device_kind="cpu")


def shapes(length=256, head_dim=64, dtype=jnp.bfloat16):
    return tuple(jax.ShapeDtypeStruct((8, length, heads, head_dim), dtype) for heads in (4, 2))


@pytest.mark.parametrize(
    ("device", "arrays", "message"),
    [
        (CPU, shapes(), "needs an NVIDIA GPU, and this is cpu"),
        (MI300, shapes(), "needs an NVIDIA GPU, and this is gpu .AMD MI300X"),
        (V100, shapes(), "needs compute capability 8.0 .Ampere. or later, and NVIDIA V100 is older"),
        (H100, shapes(dtype=jnp.float32), "computes in bfloat16, not float32: set model.compute_dtype"),
        (H100, shapes(head_dim=36), "a multiple of 8 up to 256 on NVIDIA H100, not 36"),
        (A100, shapes(head_dim=136), "a multiple of 8 up to 128 on NVIDIA A100, not 136"),
        (H100, shapes(length=255), "rows of an even length, not 255"),
    ],
)
def test_unsupported_arrays_are_refused_with_a_reason(device, arrays, message):
    assert re.search(message, refusal(*arrays, None, device))


@pytest.mark.parametrize(("device", "head_dim"), [(A100, 128), (H100, 256), (H100, 64)])
def test_supported_arrays_are_not_refused(device, head_dim):
    assert refusal(*shapes(head_dim=head_dim), None, device) is None


def test_the_program_for_a_gpu_asks_for_causal_flash_attention_with_a_mask(monkeypatch):
    # JAX checks the version of cuDNN when it lowers the program.
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    (q, k), ids = shapes(), jax.ShapeDtypeStruct((8, 256), jnp.int32)

    def loss(q, k, v, ids):
        return jnp.sum(attention_cudnn.attention(q, k, v, ids).astype(jnp.float32))

    lowered = jax.jit(jax.grad(loss, (0, 1, 2))).trace(q, k, k, ids).lower(lowering_platforms=("cuda",))
    program = lowered.as_text().replace("\\22", '"')
    assert len(re.findall(r"custom_call @__cudnn\$fmhaScaleBiasSoftmax\(", program)) == 1, "the forward kernel"
    assert len(re.findall(r"custom_call @__cudnn\$fmhaScaleBiasSoftmaxBackward\(", program)) == 1
    assert set(re.findall(r'"mask_type": "(\w+)"', program)) == {"CAUSAL"}
    assert set(re.findall(r'"fmha_scale": ([\d.]+)', program)) == {"0.125"}, "1 / sqrt(64)"
