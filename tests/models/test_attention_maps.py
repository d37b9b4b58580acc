"""The largest attention over layers and heads, against the NumPy model in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.models.attention import attention
from llama2_jax.models.attention_maps import attention_maps, log_attention_weights
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel, init_language_model, parameter_shardings
from llama2_jax.sharding.mesh import batch_sharding, make_mesh
from tests.models import reference_llama

# Of weights up to 1. Measured: at most 2e-7, float32 against float64.
TOLERANCE = 1e-5
LENGTH = 80


def shape(**changes):
    sizes = {"vocab_size": 64, "dim": 64, "layers": 3, "heads": 8, "kv_heads": 2, "ffn_hidden": 96, "max_length": 128}
    return ModelConfig(**{**sizes, **changes})


@functools.cache
def weights(config):
    """Matrices four times as large as an initialisation's: attention is sharp, and differs between layers and heads."""
    fresh = jax.jit(init_language_model, static_argnums=0)(config, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(lambda path, x: x if "norm" in str(path[-1]) else 4 * x, fresh)


def packed(config, rows=1):
    """Rows of two sequences each and ten tokens of padding."""
    lengths = (LENGTH - 40, 30, 10)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (rows, LENGTH), np.int32)
    positions = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    segment_ids = np.repeat((1, 2, 0), lengths).astype(np.int32)
    return tokens, np.tile(positions, (rows, 1)), np.tile(segment_ids, (rows, 1))


compiled = jax.jit(attention_maps, static_argnames=("config", "mesh"))


@pytest.mark.parametrize(
    "config",
    [shape(), shape(kv_heads=8), shape(scan_layers=False, remat="dots")],
    ids=["grouped", "multi-head", "unrolled"],
)
def test_the_largest_over_layers_and_heads(config):
    (tokens,), _, _ = arrays = packed(config)
    (maps,) = np.asarray(compiled(weights(config), *arrays, config=config))
    for own in (slice(0, 40), slice(40, 70)):
        heads = reference_llama.attention_weights(weights(config), config, tokens[own])
        np.testing.assert_allclose(heads.sum(axis=-1), 1)
        for axis, count in ((1, config.layers), (0, config.heads)):
            assert len(set(heads.max(axis=axis).argmax(axis=0).ravel())) == count, "every layer and head is the largest"
        np.testing.assert_allclose(maps[own, own], heads.max(axis=(0, 1)), rtol=0, atol=TOLERANCE)
    outside = np.ones((LENGTH, LENGTH), bool)
    for own in (slice(0, 40), slice(40, 70), slice(70, 80)):
        outside[own, own] = False
    assert not maps[outside].any(), "no token attends to another sequence"
    assert not np.triu(maps, 1).any(), "no token attends to a later one"


def test_weights_of_a_head_sum_to_one_and_are_those_of_the_attention():
    """Weights times values is what the model's own attention gives."""
    config = shape()
    keys = jax.random.split(jax.random.key(1), 3)
    q, k, v = (jax.random.normal(key, (2, LENGTH, heads, 8)) for key, heads in zip(keys, (8, 2, 2), strict=True))
    segment_ids = packed(config, rows=2)[2]
    found = np.exp(np.asarray(log_attention_weights(q, k, segment_ids), np.float64))
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=0, atol=1e-6)
    attended = np.einsum("bhqs,bshd->bqhd", found, np.repeat(np.asarray(v), 4, axis=2))
    np.testing.assert_allclose(attention(q, k, v, segment_ids, "xla"), attended, rtol=0, atol=TOLERANCE)
    chunk = np.exp(log_attention_weights(q, k, segment_ids, 20, 50))
    np.testing.assert_allclose(chunk, found[:, :, 20:50, :50], rtol=0, atol=1e-6)


def test_in_bfloat16_the_weights_are_about_the_same():
    config, coarse = shape(), shape(compute_dtype="bfloat16")
    arrays = packed(config)
    exact, got = (compiled(weights(config), *arrays, config=one) for one in (config, coarse))
    assert got.dtype == jnp.float32
    # bfloat16 has three decimal digits. Measured: at most 0.0044.
    np.testing.assert_allclose(got, exact, rtol=0, atol=0.02)


@pytest.mark.parametrize("sizes", [(1, 4, 2), (2, 4, 1)], ids=str)
def test_a_mesh_changes_nothing(sizes):
    config, mesh = shape(), make_mesh(*sizes)
    arrays = packed(config, rows=8)
    expected = compiled(weights(config), *arrays, config=config)
    params = jax.device_put(weights(config), parameter_shardings(LanguageModel(config), mesh))
    on_mesh = compiled(params, *jax.device_put(arrays, batch_sharding(mesh)), config=config, mesh=mesh)
    # The same sums, split over devices.
    np.testing.assert_allclose(on_mesh, expected, rtol=0, atol=TOLERANCE)
