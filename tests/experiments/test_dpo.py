"""DPO on the comparisons of a finished run, beside the versions that it is compared with."""

import pytest

from experiments import dpo, rlhf_v5
from experiments.parts.stages import stages_with_role
from llama2_jax import recipe


@pytest.mark.parametrize("argument", ["tiny", "7b", "1b,real", "small,miniature"])
def test_everything_else_is_imported_from_one_run(argument):
    config, source = dpo.get_config(argument), rlhf_v5.get_config(argument)
    config.source_run = "/runs/mine"
    recipe.validate(config)
    imported = [name for name in config.stages if config[name].role in ("tokenizer", "imported")]
    assert [config[name].folder for name in imported] == [f"/runs/mine/{name}" for name in imported]
    for name in imported:
        assert name in source.stages
        assert config[name].get("records_of") in (None, source[name].role)
    trained = [name for name in config.stages if config[name].role not in ("tokenizer", "imported")]
    assert trained == ["sft_dpo", "rejection_sampling_dpo", "evaluation", "report"]


@pytest.mark.parametrize("scale", ["tiny", "70b"])
def test_policies_learn_from_what_the_last_reward_models_learnt_from(scale):
    config, source = (one.get_config(scale).copy_and_resolve_references() for one in (dpo, rlhf_v5))
    reward_model = source.rlhf_v5_helpfulness_reward
    for name in stages_with_role(config, "dpo"):
        assert config[name].inputs.annotations == reward_model.inputs.annotations
        for field in ("preferences", "test_preferences", "length", "too_long"):
            assert config[name][field] == reward_model[field]


def test_the_two_differ_in_nothing_but_their_start():
    parts = [dpo.get_config()[name].copy_and_resolve_references().to_dict() for name in dpo.TRAINED]
    assert [part["inputs"].pop("policy") for part in parts] == ["sft", "rlhf_v5_rejection_sampling"]
    assert parts[0] == parts[1]


def test_a_group_of_settings_reaches_both():
    config = dpo.get_config()
    config.dpo.beta = 0.25
    config.sft_dpo.learning_rate = 1.0
    assert config.sft_dpo.beta == config.rejection_sampling_dpo.beta == 0.25
    assert config.rejection_sampling_dpo.learning_rate != 1.0


@pytest.mark.parametrize("scale", ["7b", "13b", "34b", "70b"])
def test_the_settings_of_the_paper_s_sizes_are_those_of_dpo_s_authors(scale):
    part = dpo.get_config(scale).sft_dpo
    found = (part.beta, part.learning_rate, part.warmup_steps, part.pairs_per_batch, part.epochs)
    assert found == (0.1, 5e-7, 150, 64, 1)
    assert (part.final_learning_rate_fraction, part.label_smoothing) == (1.0, 0.0)


def test_all_are_evaluated_alike_beside_the_recipe_s_versions():
    config, source = dpo.get_config(), rlhf_v5.get_config()
    assert config.evaluation.versions == (
        "sft", "sft_dpo", "rlhf_v5_rejection_sampling", "rejection_sampling_dpo", "rlhf_v5",
    )  # fmt: skip
    assert config.evaluation.inputs.models[-1] == "rlhf_v5_ppo"
    for name in ("helpfulness", "safety", "general"):
        assert config.evaluation.inputs[name] == source.evaluation.inputs[name]
    assert config.evaluation.prompts == source.evaluation.prompts
