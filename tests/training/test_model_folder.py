"""A model on disk comes back as it was, on one device or on a mesh."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import ScalarModel, init_language_model, init_scalar_model, parameter_shardings
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.training.checkpoint_folder import CheckpointError
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.model_folder import load_model, save_model_description, take_model
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state

CONFIG = ModelConfig(vocab_size=32, dim=16, layers=2, heads=4, kv_heads=2, ffn_hidden=24, max_length=16)


def write(folder, head="language"):
    init = init_language_model if head == "language" else init_scalar_model
    shapes = jax.eval_shape(functools.partial(init, CONFIG), jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)
    save_model_description(folder, CONFIG, head)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(1, create_state(params, make_optimizer(OptimizerConfig())))
    return params


@pytest.mark.parametrize("head", ["language", "scalar"])
def test_comes_back_as_it_was(tmp_path, head):
    params = write(tmp_path, head)
    model = load_model(tmp_path)
    assert (model.config, model.head) == (CONFIG, head)
    jax.tree.map(np.testing.assert_array_equal, model.params, params)


def test_is_laid_out_over_a_mesh(tmp_path):
    params = write(tmp_path, "scalar")
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    model = load_model(tmp_path, mesh)
    jax.tree.map(np.testing.assert_array_equal, model.params, params)
    wanted = parameter_shardings(ScalarModel(CONFIG), mesh)
    assert jax.tree.map(lambda leaf: leaf.sharding, model.params) == wanted


@pytest.mark.parametrize(("head", "other"), [("language", "scalar"), ("scalar", "language")])
def test_another_head_than_the_wanted_one_is_refused(tmp_path, head, other):
    write(tmp_path, head)
    assert load_model(tmp_path, head=head).head == head
    with pytest.raises(
        CheckpointError, match=f"{tmp_path} is a .* model, .*; what is needed here is a .* model, which"
    ):
        load_model(tmp_path, head=other)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.json is missing"):
        load_model(tmp_path)
    save_model_description(tmp_path, CONFIG, "language")
    with pytest.raises(CheckpointError, match=r"there is no folder of checkpoints at .*checkpoints"):
        load_model(tmp_path)


def test_a_description_of_another_model_is_refused_by_leaf(tmp_path):
    write(tmp_path)
    path = tmp_path / "model.json"
    content = json.loads(path.read_text())
    content["config"]["ffn_hidden"] = 32
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"trunk/layers/up: the checkpoint has float32\[2, 16, 24\], expected"):
        load_model(tmp_path)


def test_a_description_that_is_none_is_refused(tmp_path):
    (tmp_path / "model.json").write_text('{"head": "language", "config": {"dim": 3}}')
    with pytest.raises(CheckpointError, match=r"model\.json does not describe a model"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="head is 'vision'; it must be one of: language, scalar"):
        save_model_description(tmp_path, CONFIG, "vision")


def test_a_step_s_model_is_taken_by_another_folder(tmp_path):
    params = write(tmp_path / "one")
    later = jax.tree.map(lambda leaf: leaf + 1, params)
    with Checkpoints(tmp_path / "one" / "checkpoints") as checkpoints:
        checkpoints.save(2, create_state(later, make_optimizer(OptimizerConfig())))
    (tmp_path / "other").mkdir()
    take_model(tmp_path / "one", tmp_path / "other", 1)
    take_model(tmp_path / "one", tmp_path / "other", 1)  # as after an interruption
    taken = load_model(tmp_path / "other")
    assert taken.config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, taken.params, params)
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "one").params, later)
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "one", step=1).params, params)
