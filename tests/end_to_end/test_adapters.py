"""Adapters through stages: fine-tuned twice, a reward model on top, imported into another run, and all in rehearsal."""

import itertools
import json

import jax
import numpy as np
import pytest

from experiments import rlhf_v1
from llama2_jax import recipe
from llama2_jax.pipeline.stage_identity import RecipeError
from llama2_jax.rehearsal import rehearse
from llama2_jax.training.model_folder import load_adaptation, load_model
from tests.smallest import shrink

ADAPTED = ("sft_public", "sft", "rlhf_v1_helpfulness_reward")


def experiment():
    config = shrink(rlhf_v1.get_config())
    config.adapters.rank = 2
    return config


@pytest.mark.slow
def test_stages_train_adapters_of_adapted_models(tmp_path):
    records = recipe.run(experiment(), str(tmp_path / "run"), until="rlhf_v1_helpfulness_reward")
    for name, base in zip(ADAPTED, ("pretrain", "sft_public", "sft"), strict=True):
        results = records[name]["results"]
        assert 0 < results["trained_parameters"] < results["parameters"]
        assert json.loads((tmp_path / f"run/{name}/model.json").read_text())["base"]["folder"] == f"../{base}"
    assert "trained_parameters" not in records["pretrain"]["results"]
    models = {name: load_model(tmp_path / "run" / name).params for name in ("pretrain", *ADAPTED)}
    frozen = [model["trunk"]["embedding"] for model in models.values()]
    for other in frozen[1:]:
        np.testing.assert_array_equal(frozen[0], other)
    queries = [np.asarray(model["trunk"]["layers"]["query"]) for model in models.values()]
    assert all(np.abs(one - other).max() > 0 for one, other in itertools.pairwise(queries))
    # Elsewhere, with the base where it was.
    config = experiment()
    config.given.update({"tokenizer": f"{tmp_path}/run/tokenizer", "sft": f"{tmp_path}/run/sft"})
    config.stages = ("tokenizer", "sft")
    recipe.run(config, str(tmp_path / "other"))
    assert str(load_adaptation(tmp_path / "other/sft").base) == f"{tmp_path}/run/sft_public"
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "other/sft").params, models["sft"])


@pytest.mark.parametrize("scale", ["tiny", "7b"])
def test_a_rehearsal_keeps_the_adapters(scale):
    config = rlhf_v1.get_config(scale)
    config.adapters.rank = 8
    small = rehearse(config).config
    assert small.sft.finetune.adapters.rank == small.rlhf_v1_safety_reward.adapters.rank == 8
    assert small.pretrain.adapters.rank == 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rank", -1, r"adapters\.rank is -1; it must be a whole number of at least 1"),
        ("targets", ("query", "q_proj"), "it must be one or more of query, key, value"),
    ],
)
def test_what_makes_no_adapter_is_refused_before_anything_runs(field, value, message):
    config = rlhf_v1.get_config("tiny")
    config.adapters.rank = 4
    config.adapters[field] = value
    with pytest.raises(RecipeError, match=f"config.sft_public: .*{message}"):
        recipe.plan(config)


def test_pretraining_from_scratch_has_nothing_to_adapt():
    config = rlhf_v1.get_config("tiny")
    config.pretrain.adapters.rank = 4
    with pytest.raises(RecipeError, match=r"config.pretrain: adapters\.rank=4: there is no model to adapt"):
        recipe.plan(config)
