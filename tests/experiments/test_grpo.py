"""GRPO in the place of PPO, beside the versions that it is compared with."""

import pytest

from experiments import grpo, rlhf_v5
from experiments.parts.ppo import critic
from llama2_jax import recipe
from llama2_jax.pipeline.ppo_schedule import schedule_problems


@pytest.mark.parametrize("argument", ["tiny", "7b", "1b,real", "small,miniature"])
def test_everything_else_is_imported_from_one_run(argument):
    config, source = grpo.get_config(argument), rlhf_v5.get_config(argument)
    config.source_run = "/runs/mine"
    recipe.validate(config)
    imported = [name for name in config.stages if config[name].role in ("tokenizer", "imported")]
    assert [config[name].folder for name in imported] == [f"/runs/mine/{name}" for name in imported]
    assert set(imported) < set(source.stages)
    trained = [name for name in config.stages if config[name].role not in ("tokenizer", "imported")]
    assert trained == ["grpo", "evaluation", "report"]


@pytest.mark.parametrize("scale", ["tiny", "small", "7b", "70b"])
def test_it_differs_from_ppo_in_how_answers_are_compared_and_bound_to_the_start(scale):
    own, ppo = grpo.get_config(scale).grpo.to_dict(), rlhf_v5.get_config(scale).rlhf_v5_ppo.to_dict()
    differing = {name for name in {*own, *ppo} if own.get(name) != ppo.get(name)}
    of_the_critic = set(critic(rlhf_v5.get_config(scale)))
    assert of_the_critic - {"advantages", "samples_per_prompt"} == ppo.keys() - own.keys()
    assert differing - of_the_critic <= {"kl_coefficient", "warmup_steps", "group_scale"}
    assert own["inputs"] == ppo["inputs"] and own["reward"] == ppo["reward"]
    assert schedule_problems(grpo.get_config(scale).grpo) == []


def test_all_are_evaluated_alike_beside_the_recipe_s_versions():
    config, source = grpo.get_config(), rlhf_v5.get_config()
    assert config.evaluation.versions == ("sft", "rlhf_v5_rejection_sampling", "grpo", "rlhf_v5")
    assert config.evaluation.inputs.models[2:] == ("grpo", "rlhf_v5_ppo")
    for name in ("helpfulness", "safety", "general"):
        assert config.evaluation.inputs[name] == source.evaluation.inputs[name]
    assert config.evaluation.prompts == source.evaluation.prompts
