"""Every experiment can be built at every scale on both data, fits together, and adds to the one before it."""

import importlib
import itertools

import pytest

from experiments.parts.choice import DATA, default_data
from experiments.parts.scales import SCALES
from experiments.parts.stages import ROLES
from llama2_jax import recipe
from llama2_jax.models.config import ModelConfig

EXPERIMENTS = ("pretrain", "sft", "rlhf_v1", "rlhf_v2", "rlhf_v3", "rlhf_v4", "rlhf_v5")


def get_config(name, *arguments):
    return importlib.import_module(f"experiments.{name}").get_config(*arguments)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_stages_fit_together(name, scale, data):
    config = get_config(name, f"{scale},{data}")
    recipe.validate(config)
    ModelConfig(**config.model)
    assert (config.experiment, config.scale, config.data.name) == (name, scale, data)
    for stage in config.stages:
        importlib.import_module(config[stage].run).run  # noqa: B018


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_alone_is_the_scale_on_its_default_data(scale):
    chosen = get_config("rlhf_v5", f"{scale},{default_data(scale)}")
    assert get_config("rlhf_v5", scale).to_json_best_effort() == chosen.to_json_best_effort()


def test_the_default_scale_is_tiny():
    assert all(get_config(name).scale == "tiny" for name in EXPERIMENTS)


@pytest.mark.parametrize(("earlier", "later"), list(itertools.pairwise(EXPERIMENTS)))
def test_each_experiment_continues_the_one_before(earlier, later):
    before, after = get_config(earlier), get_config(later)
    kept = [name for name in before.stages if name not in ("evaluation", "report")]
    assert list(after.stages[: len(kept)]) == kept
    for name in kept:
        assert before[name].to_json_best_effort() == after[name].to_json_best_effort()


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", (*EXPERIMENTS, "gqa_uptraining"))
def test_every_stage_has_a_role(name, data):
    config = get_config(name, f"tiny,{data}")
    assert {config[stage].role for stage in config.stages} <= set(ROLES)


def test_a_change_of_the_model_reaches_the_stages_that_depend_on_it():
    config = get_config("rlhf_v5")
    config.model.vocab_size = 1000
    config.model.max_length = 129
    assert config.tokenizer.vocab_size == 1000
    assert config.sft.finetune.length == config.rlhf_v5_rejection_sampling.finetune.length == 129
    assert config.pretrain.length == config.rlhf_v1_safety_reward.length == config.general_reward.length == 43


@pytest.mark.parametrize("scale", SCALES)
def test_rows_are_as_long_as_the_context_and_short_in_the_miniature_where_texts_are(scale):
    config = get_config("rlhf_v5", scale)
    context = config.model.max_length
    trained = {config[stage].finetune.length for stage in config.stages if "finetune" in config[stage]}
    others = {config[stage].length for stage in config.stages if "length" in config[stage]}
    assert (trained, others) == ({context}, {context // 3 if scale == "tiny" else context})


def test_an_override_of_one_stage_is_that_stages_alone():
    config = get_config("rlhf_v5")
    answers, pairs = config.answer_tokens, config.reward_models.pairs_per_batch
    config.rlhf_v5_ppo.max_new_tokens = answers + 1
    config.rlhf_v2_safety_reward.pairs_per_batch = pairs + 1
    config.pretrain.length = 16
    assert config.answer_tokens == config.rlhf_v1_annotation.max_new_tokens == answers
    assert config.rlhf_v2_helpfulness_reward.pairs_per_batch == pairs
    assert config.model.max_length == config.sft.finetune.length != 16


def test_a_shared_field_is_overridden_in_all_stages():
    config = get_config("rlhf_v5")
    config.reward_models.learning_rate = 0.5
    config.finetuning.learning_rate_after_sampling = 0.25
    config.samples_per_prompt = 3
    assert {config[f"rlhf_v{n}_{kind}_reward"].learning_rate for n in (1, 5) for kind in ("helpfulness", "safety")} == {
        0.5
    }
    sampling = [config[f"rlhf_v{number}_rejection_sampling"] for number in range(1, 6)]
    assert {stage.finetune.learning_rate for stage in sampling} == {0.25}
    assert {stage.samples_per_prompt for stage in sampling} == {3}


def test_the_evaluation_has_the_newest_reward_models_and_the_report_all_stages():
    config = get_config("rlhf_v3", "small")
    assert config.evaluation.inputs.helpfulness == "rlhf_v3_helpfulness_reward"
    assert config.evaluation.inputs.safety == "rlhf_v3_safety_reward"
    assert config.evaluation.inputs.annotator_safety == "annotator_safety"
    assert config.report.inputs.stages == config.stages[:-1]
