"""InstructGPT on a finished run: its published settings, the same annotation budget, and what it is compared with."""

import importlib

import pytest

from experiments import grpo, instructgpt, rlhf_v5
from experiments.parts.stages import stages_with_role
from llama2_jax import recipe, rehearsal
from llama2_jax.pipeline.ppo_schedule import schedule_problems
from llama2_jax.pipeline.pretraining_mix import mix_problems
from tests.smallest import shrink


@pytest.mark.parametrize("argument", ["tiny", "7b", "1b,real", "small,miniature"])
def test_everything_else_is_imported_from_one_run(argument):
    config, source = instructgpt.get_config(argument), rlhf_v5.get_config(argument)
    config.source_run = "/runs/mine"
    recipe.validate(config)
    imported = [name for name in config.stages if config[name].role in ("tokenizer", "imported")]
    assert [config[name].folder for name in imported] == [f"/runs/mine/{name}" for name in imported]
    for name in imported:
        assert config[name].get("records_of") in (None, source[name].role)
    trained = [name for name in config.stages if config[name].role not in ("tokenizer", "imported")]
    assert trained == [
        "rankings", "ranked_reward", "instructgpt_without_ptx", "instructgpt", "text_loss", "evaluation", "report",
    ]  # fmt: skip


@pytest.mark.parametrize("scale", ["7b", "13b", "34b", "70b"])
def test_the_settings_of_the_paper_s_sizes_are_instructgpt_s(scale):
    config = instructgpt.get_config(scale)
    reward, ppo = config.ranked_reward, config.instructgpt
    assert (reward.prompts_per_batch, reward.epochs, reward.learning_rate) == (64, 1, 9e-6)
    assert (reward.final_learning_rate_fraction, reward.warmup_steps) == (0.1, 0)
    assert config.rankings.answers_per_prompt == (4, 9) and reward.most_answers == 9
    assert (ppo.batch_size, ppo.minibatch_size, ppo.batch_size * ppo.iterations) == (512, 64, 256_000)
    assert (ppo.kl_coefficient, ppo.clip, ppo.gamma, ppo.temperature) == (0.02, 0.2, 1.0, 1.0)
    assert (ppo.warmup_steps, ppo.final_learning_rate_fraction, ppo.critic_learning_rate) == (10, 1.0, 9e-6)
    assert (ppo.pretraining_mix.coefficient, ppo.pretraining_mix.batch_size) == (27.8, 8 * ppo.minibatch_size)
    assert ppo.ema_decay == 0.992


@pytest.mark.parametrize("argument", ["tiny", "small", "7b", "1b,miniature"])
def test_raters_read_as_many_answers_as_in_all_five_rounds(argument):
    """Two of each comparison; the rankings have prompts of all rounds."""
    config, source = instructgpt.get_config(argument), rlhf_v5.get_config(argument)
    compared = 0
    for number in range(1, 6):
        for name, prompts in source[f"rlhf_v{number}_annotation"].prompts.items():
            compared += prompts.limit if "limit" in prompts else prompts.arguments.count
            assert config.rankings.prompts[f"round_{number}_{name}"] == prompts
    assert config.rankings.judged_answers == 2 * compared


def test_both_policies_differ_in_the_text_alone():
    parts = [instructgpt.get_config()[name].copy_and_resolve_references().to_dict() for name in instructgpt.TRAINED]
    without, mixed = (part.pop("pretraining_mix") for part in parts)
    assert parts[0] == parts[1] and without == {"coefficient": 0.0} and mixed["coefficient"] > 0


@pytest.mark.parametrize("argument", ["tiny", "small", "7b", "70b"])
def test_one_reward_model_is_both_and_the_policies_start_from_sft(argument):
    config = instructgpt.get_config(argument)
    for name in stages_with_role(config, "ppo"):
        inputs = config[name].inputs
        assert (inputs.policy, inputs.helpfulness, inputs.safety) == ("sft", "ranked_reward", "ranked_reward")
        assert config[name].reward.function == "llama2_jax.pipeline.reward_models.single_reward"
        assert not schedule_problems(config[name]) + mix_problems(config[name].pretraining_mix)
    assert config.ranked_reward.inputs.start == "sft"


def test_the_text_is_pretraining_s_and_what_it_held_out_measures_all_versions():
    config, source = instructgpt.get_config(), rlhf_v5.get_config()
    assert config.instructgpt.pretraining_mix.sources == config.text_loss.sources == source.pretrain.sources
    assert config.text_loss.versions == ("pretrain", *config.evaluation.versions)
    assert config.text_loss.inputs.models == ("pretrain", *config.evaluation.inputs.models)


def test_all_are_evaluated_alike_by_v5_s_reward_models():
    config, source = instructgpt.get_config(), rlhf_v5.get_config()
    assert config.evaluation.versions == ("sft", "instructgpt_without_ptx", "instructgpt", "rlhf_v5")
    for name in ("helpfulness", "safety", "general"):
        assert config.evaluation.inputs[name] == source.evaluation.inputs[name]
    assert config.evaluation.prompts == source.evaluation.prompts


@pytest.mark.parametrize("page", [instructgpt, grpo], ids=lambda page: page.__name__)
def test_every_stage_that_uses_devices_says_what_it_needs(page):
    plan = recipe.plan(shrink(page.get_config()))
    for name in (name for name in plan.stages if plan.config[name].role not in ("tokenizer", "imported", "report")):
        work = importlib.import_module(plan.config[name].run).device_work(plan.config[name], plan.model, plan.mesh)
        assert work.programs and all(one.uses and one.model_flops > 0 for one in work.programs), name


@pytest.mark.parametrize("scale", ["tiny", "small", "1b", "7b", "70b"])
@pytest.mark.parametrize("page", [instructgpt, grpo], ids=lambda page: page.__name__)
def test_it_can_be_rehearsed_at_every_scale(page, scale):
    """Turned down, its numbers still fit each other."""
    small = rehearsal.rehearse(page.get_config(scale)).config
    for name in small.stages:
        recipe.check_stage(small, name, lambda sources: 64 * len(sources))
    if page is instructgpt:
        mix, ppo = small.instructgpt.pretraining_mix, small.instructgpt
        assert mix.batch_size <= 16 and ppo.batch_size % ppo.samples_per_prompt == 0
        assert small.rankings.judged_answers < instructgpt.get_config(scale).rankings.judged_answers / 32
