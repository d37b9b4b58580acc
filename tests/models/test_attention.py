"""The contract that every backend of attention keeps, and the choice of a backend.

XLA's backend runs anywhere, the others on their platform, splash elsewhere in interpret mode. On a machine with a GPU
or TPU: TEST_PLATFORMS=cuda,cpu (or tpu,cpu) python -m pytest tests/models/test_attention.py
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.models import attention as attention_file
from llama2_jax.models import attention_splash
from llama2_jax.models.attention import attention, choose_backend
from tests.models.reference_llama import softmax

HEAD_DIM = 8
# Heads, key and value heads, length: splash fills the lengths up to one and to two of its smallest blocks.
MULTI_HEAD, GROUPED = (2, 2, 100), (4, 2, 180)

TPU = types.SimpleNamespace(platform="tpu", device_kind="TPU v5")
GPU = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H100", compute_capability="9.0")


def token_by_token(q, k, v, segment_ids):
    """Attention by the words of the contract, in float64."""
    q, k, v, segment_ids = (np.asarray(x, np.float64) for x in (q, k, v, segment_ids))
    out = np.zeros_like(q)
    group = q.shape[2] // k.shape[2]
    for row, t, head in np.ndindex(*q.shape[:3]):
        seen = np.flatnonzero(segment_ids[row, : t + 1] == segment_ids[row, t])
        weights = softmax(k[row, seen, head // group] @ q[row, t, head] / np.sqrt(q.shape[3]))
        out[row, t, head] = weights @ v[row, seen, head // group]
    return out


def written_out(q, k, v, segment_ids):
    """Attention with all scores at once, for gradients."""
    group, length = q.shape[2] // k.shape[2], q.shape[1]
    k, v = jnp.repeat(k, group, axis=2), jnp.repeat(v, group, axis=2)
    scores = jnp.einsum("bqhd,bshd->bhqs", q, k) / jnp.sqrt(q.shape[3])
    seen = jnp.tril(jnp.ones((length, length), bool)) & (segment_ids[:, :, None] == segment_ids[:, None, :])
    return jnp.einsum("bhqs,bshd->bqhd", jax.nn.softmax(jnp.where(seen[:, None], scores, -jnp.inf)), v)


def backend_function(backend, monkeypatch):
    """The backend as a function of q, k, v and segment_ids, its dtype and its tolerance; skips if it cannot run."""
    if backend == "cudnn" and jax.default_backend() != "gpu":
        pytest.skip("cudnn needs an NVIDIA GPU: TEST_PLATFORMS=cuda,cpu on a machine that has one")
    if backend == "cudnn":
        # bfloat16 has 8 bits of mantissa; results and gradients are of unit size.
        return functools.partial(attention, backend=backend), jnp.bfloat16, 0.03
    if backend == "splash":
        monkeypatch.setattr(attention_splash, "BLOCK_SIZES", (128,))
        interpret = jax.default_backend() != "tpu"
        # A TPU's matrix products read float32 as bfloat16.
        return functools.partial(attention_splash.attention, interpret=interpret), jnp.float32, (
            1e-5 if interpret else 0.03
        )  # fmt: skip
    # Float32, and sums of up to 180 products of unit size.
    return functools.partial(attention, backend=backend), jnp.float32, 1e-5


def packed_rows(heads, kv_heads, length, dtype):
    """A row of three segments and padding, a row of one segment, a row of padding."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((3, length, count, HEAD_DIM) for count in (heads, kv_heads, kv_heads))
    arrays = [jax.random.normal(key, shape).astype(dtype) for key, shape in zip(keys, shapes, strict=True)]
    third = length // 3
    row = np.repeat([1, 2, 3, 0], [third, third - 7, third // 2, length - third - (third - 7) - third // 2])
    return arrays, jnp.asarray(np.stack([row, np.ones(length, int), np.zeros(length, int)]), jnp.int32)


def one_segment_a_row(array, segment_ids):
    """The three segments of the first row, each at the start of its own row."""
    starts = [int(np.argmax(np.asarray(segment_ids[0]) == number)) for number in (1, 2, 3)]
    return jnp.stack([jnp.roll(array[0], -start, axis=0) for start in starts])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["xla", "splash", "cudnn"])
@pytest.mark.parametrize("shape", [MULTI_HEAD, GROUPED], ids=["multi_head", "grouped"])
def test_every_backend_keeps_the_contract(backend, shape, monkeypatch):
    run, dtype, tolerance = backend_function(backend, monkeypatch)
    arrays, ids = packed_rows(*shape, dtype)

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradients(run, arrays, ids):
        def loss(arrays):
            out = run(*arrays, ids).astype(jnp.float32)
            return jnp.sum(jnp.where(ids[..., None, None] > 0, jnp.sin(out), 0.0)), out

        (_, out), gradients = jax.value_and_grad(loss, has_aux=True)(arrays)
        return out, gradients

    def check(got, expected, mask):
        expected = np.asarray(expected, np.float32)
        scale = max(1.0, float(np.abs(expected[mask]).max()))
        np.testing.assert_allclose(np.asarray(got, np.float32)[mask], expected[mask], atol=tolerance * scale)

    real = np.asarray(ids) > 0
    out, gradients = with_gradients(run, arrays, ids)
    check(out, token_by_token(*arrays, ids), real)
    assert np.isfinite(out).all(), "padding stays finite"
    wide = [array.astype(jnp.float32) for array in arrays]
    for got, expected in zip(gradients, with_gradients(written_out, wide, ids)[1], strict=True):
        check(got, expected, real)

    # Packed equals unpacked, token by token.
    unpacked_ids = (one_segment_a_row(ids, ids) == jnp.arange(1, 4)[:, None]).astype(jnp.int32)
    unpacked_arrays = [one_segment_a_row(array, ids) for array in arrays]
    unpacked_out, unpacked_gradients = with_gradients(run, unpacked_arrays, unpacked_ids)
    for packed, unpacked in ((out, unpacked_out), *zip(gradients, unpacked_gradients, strict=True)):
        check(one_segment_a_row(packed, ids), unpacked, np.asarray(unpacked_ids) > 0)


def test_padding_reaches_no_token():
    (q, k, v), ids = packed_rows(*GROUPED, jnp.float32)
    xla = jax.jit(lambda *qkv: attention(*qkv, ids, "xla"))
    padding = (ids == 0)[..., None, None]
    before, after = xla(q, k, v), xla(*(jnp.where(padding, 100.0, x) for x in (q, k, v)))
    np.testing.assert_array_equal(jnp.where(padding, 0, before), jnp.where(padding, 0, after))


def shapes(length=256, dtype=jnp.bfloat16, heads=4, kv_heads=2, rows=8, head_dim=64):
    return (
        jax.ShapeDtypeStruct((rows, length, heads, head_dim), dtype),
        jax.ShapeDtypeStruct((rows, length, kv_heads, head_dim), dtype),
    )


@pytest.mark.parametrize(
    ("device", "arrays", "chosen"),
    [
        (TPU, shapes(), "splash"),
        (TPU, shapes(dtype=jnp.float32), "splash"),
        (TPU, shapes(length=200), "splash"),
        (TPU, shapes(length=64), "xla"),
        (GPU, shapes(), "cudnn"),
        (GPU, shapes(dtype=jnp.float32), "xla"),
        (GPU, shapes(length=255), "xla"),
        (GPU, shapes(length=64), "xla"),
        (types.SimpleNamespace(platform="cpu", device_kind="cpu"), shapes(), "xla"),
    ],
)
def test_auto_is_the_platforms_kernel_if_it_supports_the_arrays(device, arrays, chosen, monkeypatch):
    monkeypatch.setattr(attention_file, "program_device", lambda mesh: device)
    assert choose_backend("auto", *arrays) == chosen


def test_the_platform_is_that_of_the_mesh():
    """A program may be compiled for a slice that is not attached."""
    mesh = types.SimpleNamespace(devices=np.array([[TPU]]), shape={"data": 2, "fsdp": 2, "tensor": 2})
    assert choose_backend("auto", *shapes(), mesh) == "splash"
    assert choose_backend("auto", *shapes(rows=6), mesh) == "xla", "rows that the mesh cannot split"
    assert choose_backend("auto", *shapes()) == "xla", "here, without a mesh"


def test_auto_runs_here():
    (q, k, v), ids = packed_rows(*GROUPED, jnp.float32)
    np.testing.assert_array_equal(attention(q, k, v, ids, "auto"), attention(q, k, v, ids, "xla"))


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("flash", "unknown attention backend 'flash'; known are auto, xla, cudnn, splash"),
        ("cudnn", "model.attention='cudnn' needs an NVIDIA GPU, and this is cpu.*'auto' or 'xla'"),
        ("splash", "model.attention='splash' needs a TPU, and this is cpu.*'auto' or 'xla'"),
    ],
)
def test_a_backend_that_cannot_run_here_raises(backend, message):
    with pytest.raises(ValueError, match=message):
        choose_backend(backend, *shapes())
