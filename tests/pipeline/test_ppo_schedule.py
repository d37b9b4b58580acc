"""PPO's settings that leave the policy nothing to learn are found before a run."""

import pytest
from ml_collections import ConfigDict

from experiments import rlhf_v5
from llama2_jax.pipeline.ppo_schedule import critic_warmup, schedule_problems

SETTINGS = {
    "iterations": 40, "critic_warmup_iterations": 15, "evaluate_every": 5, "save_every": 10, "patience": 3,
    "batch_size": 128, "minibatch_size": 32, "accumulation": 1, "advantages": "critic", "samples_per_prompt": 1,
}  # fmt: skip


@pytest.mark.parametrize("scale", ["tiny", "small", "1b", "7b", "70b"])
def test_every_scale_is_sound(scale):
    assert schedule_problems(rlhf_v5.get_config(scale).rlhf_v5_ppo) == []


def test_a_warm_up_longer_than_the_patience_is_sound():
    assert schedule_problems(ConfigDict(SETTINGS)) == []


@pytest.mark.parametrize("warmup", [40, 41])
def test_a_warm_up_as_long_as_the_run_is_not(warmup):
    (problem,) = schedule_problems(ConfigDict({**SETTINGS, "critic_warmup_iterations": warmup}))
    assert f"critic_warmup_iterations={warmup} with iterations=40" in problem


@pytest.mark.parametrize(
    "field", ["evaluate_every", "save_every", "patience", "minibatch_size", "accumulation", "samples_per_prompt"]
)
def test_counts_of_nothing_are_not(field):
    """A patience of 0 would end the run before its first iteration."""
    assert schedule_problems(ConfigDict({**SETTINGS, field: 0})) == [f"{field}=0: wanted at least 1"]


def test_groups_need_several_answers_to_each_prompt_and_no_critic():
    """Fields of a critic are not looked for."""
    grouped = {name: value for name, value in SETTINGS.items() if name != "critic_warmup_iterations"}
    grouped["advantages"] = "group"
    assert schedule_problems(ConfigDict({**grouped, "samples_per_prompt": 8})) == []
    assert critic_warmup(ConfigDict(grouped)) == 0
    (problem,) = schedule_problems(ConfigDict(grouped))
    assert "samples_per_prompt=1 with advantages='group'" in problem and "at least 2" in problem


@pytest.mark.parametrize("advantages", ["critic", "group"])
def test_the_answers_to_a_prompt_are_in_one_batch(advantages):
    (problem,) = schedule_problems(ConfigDict({**SETTINGS, "advantages": advantages, "samples_per_prompt": 3}))
    assert "samples_per_prompt=3 must divide batch_size=128" in problem
