"""Fewer key and value heads (section 2.1 of the GQA paper)."""

import dataclasses

import numpy as np
import pytest

from llama2_jax.interop.checkpoint import DTYPES, BadCheckpoint
from llama2_jax.interop.grouped_queries import with_kv_heads
from tests.models import reference_llama
from tests.random_model import MULTI_HEAD, as_tree, assert_same, in_memory, random_arrays


def gathered(checkpoint):
    """All parameters of a checkpoint, read."""
    arrays = {}
    for name in random_arrays(checkpoint.config):
        if name.startswith("trunk/layers/"):
            arrays[name] = np.stack([checkpoint.read(name, layer) for layer in range(checkpoint.config.layers)])
        else:
            arrays[name] = checkpoint.read(name)
    return arrays


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_heads_are_pooled_as_the_paper_says(kv_heads):
    arrays = random_arrays(MULTI_HEAD)
    mean = gathered(with_kv_heads(in_memory(MULTI_HEAD, arrays), kv_heads, "mean"))
    first = gathered(with_kv_heads(in_memory(MULTI_HEAD, arrays), kv_heads, "first"))
    group, size = 4 // kv_heads, MULTI_HEAD.head_dim
    for name in ("trunk/layers/key", "trunk/layers/value"):
        heads = np.split(arrays[name], 4, axis=2)
        for number in range(kv_heads):
            members = heads[number * group : (number + 1) * group]
            own = slice(number * size, (number + 1) * size)
            np.testing.assert_allclose(mean[name][:, :, own], sum(members) / group, atol=1e-7)
            np.testing.assert_array_equal(first[name][:, :, own], members[0])
    for name in arrays.keys() - {"trunk/layers/key", "trunk/layers/value"}:
        np.testing.assert_array_equal(mean[name], arrays[name])


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_model_whose_groups_agree_computes_what_it_did(pooling):
    arrays = random_arrays(MULTI_HEAD)
    for name in ("trunk/layers/key", "trunk/layers/value"):
        heads = arrays[name].reshape(3, 32, 2, 2, 8)
        heads[:, :, :, 1] = heads[:, :, :, 0]
    pooled = with_kv_heads(in_memory(MULTI_HEAD, arrays), 2, pooling)
    assert pooled.config == dataclasses.replace(MULTI_HEAD, kv_heads=2)
    tokens = np.arange(20)
    np.testing.assert_allclose(
        reference_llama.logits(as_tree(gathered(pooled)), pooled.config, tokens),
        reference_llama.logits(as_tree(arrays), MULTI_HEAD, tokens),
        atol=1e-6,  # the mean is rounded to float32
    )


def test_random_heads_are_a_new_initialisation_that_a_seed_repeats():
    checkpoint = in_memory(MULTI_HEAD, random_arrays(MULTI_HEAD))
    once, again, other = (with_kv_heads(checkpoint, 2, "random", seed) for seed in (0, 0, 1))
    key = gathered(once)["trunk/layers/key"]
    assert key.shape == (3, 32, 16)
    assert abs(key.std() - 0.02) < 0.002
    assert_same(again, gathered(once))
    assert not np.array_equal(gathered(other)["trunk/layers/key"], key)
    assert not np.array_equal(key[0], key[1])


def test_the_dtype_stays_and_parts_are_parts_of_the_whole():
    arrays = {name: array.astype(DTYPES["bfloat16"]) for name, array in random_arrays(MULTI_HEAD).items()}
    for pooling in ("mean", "first", "random"):
        pooled = with_kv_heads(in_memory(MULTI_HEAD, arrays), 2, pooling)
        whole = pooled.read("trunk/layers/value", 1)
        assert whole.dtype == DTYPES["bfloat16"]
        part = (slice(3, 9), slice(8, 16))
        np.testing.assert_array_equal(pooled.read("trunk/layers/value", 1, part), whole[part])


@pytest.mark.parametrize("kv_heads", [0, 3, 8, -1])
def test_what_does_not_divide_is_refused(kv_heads):
    with pytest.raises(BadCheckpoint, match=f"4 key and value heads cannot become {kv_heads}: choose a divisor"):
        with_kv_heads(in_memory(MULTI_HEAD, {"x": np.zeros(1)}), kv_heads)


def test_an_unknown_pooling():
    with pytest.raises(BadCheckpoint, match="kv_pooling is 'median'; it must be one of: mean, first, random"):
        with_kv_heads(in_memory(MULTI_HEAD, {"x": np.zeros(1)}), 2, "median")
