"""A multi-head model becomes one of grouped queries: pretrained, converted, trained further."""

import json

import jax
import numpy as np
import pytest

from experiments import gqa_uptraining, pretrain
from experiments.parts.scales import SCALES
from llama2_jax import recipe
from llama2_jax.convert import convert, open_checkpoint
from llama2_jax.interop.grouped_queries import with_kv_heads
from llama2_jax.models.config import ModelConfig
from llama2_jax.training.model_folder import load_model
from tests.smallest import shrink


@pytest.mark.parametrize("scale", SCALES)
def test_it_is_a_twentieth_of_pretraining_over_the_same_text(scale):
    config, whole = gqa_uptraining.get_config(scale), pretrain.get_config(scale)
    recipe.validate(config)
    assert abs(config.uptrain.steps - whole.pretrain.steps / 20) <= 0.5  # to the nearest step
    assert config.uptrain.sources.to_json() == whole.pretrain.sources.to_json()
    model = ModelConfig(**config.model)
    assert model.kv_heads < model.heads


def small(config, kv_heads):
    shrink(config)
    config.model.update({"heads": 4, "kv_heads": kv_heads})
    return config


@pytest.mark.slow
def test_a_multi_head_model_is_pooled_and_trained_further(tmp_path):
    recipe.run(small(pretrain.get_config(), kv_heads=4), str(tmp_path / "multi_head"))
    source = open_checkpoint(tmp_path / "multi_head/pretrain")
    convert(with_kv_heads(source, 2, "mean"), tmp_path / "grouped", "orbax")
    config = small(gqa_uptraining.get_config(), kv_heads=2)
    config.base.folder = str(tmp_path / "grouped")
    config.uptrain.update({"steps": 3, "batch_size": 8, "save_every": 2, "log_every": 1, "learning_rate": 1e-3})
    config.uptrain.warmup_steps = 0
    results = recipe.run(config, str(tmp_path / "run"))["uptrain"]["results"]
    assert results["held_out_loss"] < results["start_held_out_loss"]
    before, after = load_model(tmp_path / "grouped"), load_model(tmp_path / "run/uptrain")
    assert before.config.kv_heads == after.config.kv_heads == 2
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before.params, after.params)
    assert 0 < max(jax.tree.leaves(moved)) < 0.02  # a few steps from where it started
    record = json.loads((tmp_path / "multi_head/pretrain/stage.json").read_text())
    assert "start_held_out_loss" not in record["results"]


def test_without_a_folder_it_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"config\.base\.folder is empty"):
        recipe.run(small(gqa_uptraining.get_config(), kv_heads=2), str(tmp_path))
