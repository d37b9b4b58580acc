import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.models import attention as attention_file
from llama2_jax.models.attention import attention, cached_attention
from tests.models.reference_llama import softmax

ROWS, LENGTH, HEADS, KV_HEADS, HEAD_DIM = 2, 37, 6, 2, 8


def queries_keys_values(length=LENGTH):
    keys = jax.random.split(jax.random.key(0), 3)
    return tuple(
        jax.random.normal(key, (ROWS, length, heads, HEAD_DIM))
        for key, heads in zip(keys, (HEADS, KV_HEADS, KV_HEADS), strict=True)
    )


def segments(length=LENGTH):
    row = np.repeat([1, 2, 3, 0], [length // 3, length // 3, length // 6, length - 2 * (length // 3) - length // 6])
    return jnp.asarray(np.stack([row, np.ones(length, int)]), jnp.int32)


def token_by_token(q, k, v, segment_ids):
    q, k, v, segment_ids = (np.asarray(x, np.float64) for x in (q, k, v, segment_ids))
    out = np.zeros_like(q)
    for row, t, head in np.ndindex(*q.shape[:3]):
        seen = [s for s in range(t + 1) if segment_ids[row, s] == segment_ids[row, t]]
        kv_head = head // (HEADS // KV_HEADS)
        weights = softmax(k[row, seen, kv_head] @ q[row, t, head] / np.sqrt(HEAD_DIM))
        out[row, t, head] = weights @ v[row, seen, kv_head]
    return out


@pytest.mark.slow
def test_equals_attention_written_token_by_token():
    q, k, v = queries_keys_values()
    # Float32 against float64 on sums of 37 products of unit size.
    expected = token_by_token(q, k, v, segments())
    np.testing.assert_allclose(attention(q, k, v, segments(), "xla"), expected, atol=2e-6)


@pytest.mark.parametrize("length", [1, 65, 600])
def test_chunks_of_queries_change_nothing(length, monkeypatch):
    q, k, v = queries_keys_values(length)
    ids = segments(length)

    def loss(q, k, v):
        out = attention(q, k, v, ids, "xla")
        return jnp.sum(jnp.sin(out)), out

    def value_and_gradients():
        return jax.jit(jax.value_and_grad(lambda *qkv: loss(*qkv), (0, 1, 2), has_aux=True))(q, k, v)

    (_, chunked), chunked_gradients = value_and_gradients()
    monkeypatch.setattr(attention_file, "MIN_CHUNK", length)
    (_, whole), whole_gradients = value_and_gradients()
    # The same sums in another order.
    np.testing.assert_allclose(chunked, whole, atol=1e-5)
    for got, expected in zip(chunked_gradients, whole_gradients, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_padding_is_finite_and_reaches_no_token():
    q, k, v = queries_keys_values()
    ids = segments()
    xla = jax.jit(lambda *qkv: attention(*qkv, ids, "xla"))
    out = xla(q, k, v)
    assert np.isfinite(out).all()
    padding = (ids == 0)[..., None, None]
    changed = xla(*(jnp.where(padding, 100.0, x) for x in (q, k, v)))
    np.testing.assert_array_equal(jnp.where(padding, 0, out), jnp.where(padding, 0, changed))


def test_cached_attention_reads_the_slots_of_its_mask():
    q, k, v = queries_keys_values()
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((LENGTH, LENGTH), bool)), (ROWS, LENGTH, LENGTH))
    out = cached_attention(q, k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3), mask)
    expected = attention(q, k, v, jnp.ones((ROWS, LENGTH), jnp.int32), "xla")
    np.testing.assert_allclose(out, expected, atol=1e-6)  # the same sums in another order


def test_unknown_backends_raise():
    with pytest.raises(ValueError, match="unknown attention backend 'flash'"):
        attention(*queries_keys_values(), segments(), "flash")


def test_cudnn_does_not_run_on_the_cpu_as_if_it_did():
    with pytest.raises(ValueError, match="needs an NVIDIA GPU"):
        attention(*queries_keys_values(), segments(), "cudnn")
