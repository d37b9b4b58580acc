"""Parameters read from others' files, straight onto one device or many."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.interop.huggingface import open_huggingface
from llama2_jax.interop.huggingface_export import write_huggingface
from llama2_jax.interop.loading import load_params
from llama2_jax.interop.meta import open_meta
from llama2_jax.interop.meta_export import write_meta
from llama2_jax.models.llama import LanguageModel, ScalarModel, parameter_shardings
from llama2_jax.sharding.mesh import make_mesh
from tests.random_model import FOR_EIGHT, as_tree, in_memory, random_arrays


def written(folder, kind, head="language"):
    arrays = random_arrays(FOR_EIGHT, head)
    checkpoint = in_memory(FOR_EIGHT, arrays, head)
    if kind == "huggingface":
        write_huggingface(checkpoint, folder, checkpoint.dtype)
        return open_huggingface(folder), as_tree(arrays)
    write_meta(checkpoint, folder, checkpoint.dtype, shards=int(kind[-1]))
    return open_meta(folder), as_tree(arrays)


@pytest.mark.parametrize("kind", ["huggingface", "meta_1", "meta_2", "meta_8"])
@pytest.mark.parametrize("sizes", [None, (1, 8, 1), (1, 1, 8), (2, 2, 2), (8, 1, 1)], ids=str)
def test_parameters_are_laid_out_as_asked(tmp_path, kind, sizes):
    checkpoint, wanted = written(tmp_path, kind)
    mesh = sizes and make_mesh(*sizes)
    params = load_params(checkpoint, mesh)
    jax.tree.map(np.testing.assert_array_equal, params, wanted)
    if mesh is None:
        assert all(leaf.devices() == {jax.local_devices()[0]} for leaf in jax.tree.leaves(params))
    else:
        assert jax.tree.map(lambda leaf: leaf.sharding, params) == parameter_shardings(LanguageModel(FOR_EIGHT), mesh)


def test_a_scalar_model(tmp_path):
    checkpoint, wanted = written(tmp_path, "huggingface", "scalar")
    mesh = make_mesh(2, 2, 2)
    params = load_params(checkpoint, mesh)
    jax.tree.map(np.testing.assert_array_equal, params, wanted)
    assert jax.tree.map(lambda leaf: leaf.sharding, params) == parameter_shardings(ScalarModel(FOR_EIGHT), mesh)


def test_no_more_than_a_shard_is_read_for_a_device(tmp_path):
    checkpoint, _ = written(tmp_path, "huggingface")
    taken = []

    def read(name, layer=None, index=None):
        array = checkpoint.read(name, layer, index)
        taken.append(array.size)
        return array

    load_params(dataclasses.replace(checkpoint, read=read), make_mesh(1, 4, 2))
    assert max(taken) == 64 * 72 // 8  # an eighth of a feed-forward matrix, the largest


def test_in_sixteen_bits(tmp_path):
    checkpoint, wanted = written(tmp_path, "huggingface")
    params = load_params(checkpoint, dtype=jnp.bfloat16)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.bfloat16), strict=True), params, wanted)
