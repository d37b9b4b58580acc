import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.models import attention_xla
from llama2_jax.models.attention_xla import attention, cached_attention

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


@pytest.mark.parametrize("length", [1, 65, pytest.param(600, marks=pytest.mark.slow)])
def test_chunks_of_queries_change_nothing(length, monkeypatch):
    q, k, v = queries_keys_values(length)
    ids = segments(length)

    def loss(q, k, v):
        out = attention(q, k, v, ids)
        return jnp.sum(jnp.sin(out)), out

    def value_and_gradients():
        return jax.jit(jax.value_and_grad(lambda *qkv: loss(*qkv), (0, 1, 2), has_aux=True))(q, k, v)

    (_, chunked), chunked_gradients = value_and_gradients()
    monkeypatch.setattr(attention_xla, "MIN_CHUNK", length)
    (_, unchunked), unchunked_gradients = value_and_gradients()
    # The same sums in another order.
    np.testing.assert_allclose(chunked, unchunked, atol=1e-5)
    for got, expected in zip(chunked_gradients, unchunked_gradients, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_cached_attention_reads_the_slots_of_its_mask():
    q, k, v = queries_keys_values()
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((LENGTH, LENGTH), bool)), (ROWS, LENGTH, LENGTH))
    out = cached_attention(q, k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3), mask)
    expected = attention(q, k, v, jnp.ones((ROWS, LENGTH), jnp.int32))
    np.testing.assert_allclose(out, expected, atol=1e-6)  # the same sums in another order


def test_padding_a_single_query_with_zeros_changes_nothing():
    q, k, v = queries_keys_values()
    cache = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    mask = jnp.broadcast_to(jnp.arange(LENGTH) < 30, (ROWS, 1, LENGTH))
    for query in (q[:, :1, :KV_HEADS], q[:, :1]):  # a group of one, and of three, which needs no padding
        out = cached_attention(query, *cache, mask, min_group=2)
        assert out.shape == query.shape
        np.testing.assert_allclose(out, cached_attention(query, *cache, mask), atol=1e-6)  # sums in another order


def test_cached_attention_sums_in_float32_for_bfloat16():
    """The product for one query may be compiled to a sum over the slots, in the product's dtype (as libtpu does)."""
    q, k, v = (x.astype(jnp.bfloat16) for x in queries_keys_values())
    arguments = (q[:, :1], k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3), jnp.ones((ROWS, 1, LENGTH), bool))
    program = jax.make_jaxpr(cached_attention)(*arguments)
    products = [one for one in program.jaxpr.eqns if one.primitive.name == "dot_general"]
    assert [one.outvars[0].aval.dtype for one in products] == [jnp.float32] * 2
    assert cached_attention(*arguments).dtype == jnp.bfloat16
