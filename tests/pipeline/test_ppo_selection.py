"""What may be kept of PPO: the changes are made by hand, and the errors with them."""

import math

import pytest

from llama2_jax.evaluation.over_optimisation import Rewards
from llama2_jax.pipeline.ppo_selection import held_out_means, what_fell

PROMPTS = [{"safety": place < 4} for place in range(8)]
# Four changes with a mean of 0 and a standard error of 1.
SPREAD = [math.sqrt(3), -math.sqrt(3), math.sqrt(3), -math.sqrt(3)]
START = Rewards([0.0] * 8, [5.0] * 8)


def changed(tagged=0.0, harmless=0.0, general=0.0):
    """Rewards whose mean changes since the start are so many of their standard errors."""
    of_both = [tagged + one for one in SPREAD] + [harmless + one for one in SPREAD]
    return Rewards(of_both, [5.0] * 4 + [5.0 + general + one for one in SPREAD])


@pytest.mark.parametrize(
    ("changes", "fell"),
    [
        ({}, []),
        ({"tagged": -0.95, "harmless": -0.95, "general": -0.95}, []),
        ({"tagged": -1.05, "harmless": 9.0, "general": 9.0}, ["tagged"]),
        ({"tagged": 9.0, "harmless": -1.05, "general": 9.0}, ["harmless"]),
        ({"tagged": 9.0, "harmless": 9.0, "general": -1.9}, []),
        ({"tagged": 9.0, "harmless": 9.0, "general": -2.0}, ["general"]),
        ({"tagged": -2.0, "harmless": -2.0, "general": -2.0}, ["tagged", "harmless", "general"]),
    ],
)
def test_each_may_fall_by_its_standard_errors_whatever_the_others_gain(changes, fell):
    assert what_fell(START, changed(**changes), PROMPTS) == fell


def test_the_general_reward_on_tagged_prompts_is_no_matter():
    now = changed()
    assert what_fell(START, Rewards(now.optimised, [-9.0] * 4 + list(now.general[4:])), PROMPTS) == []


@pytest.mark.parametrize(("refused", "fell"), [(1, []), (2, []), (4, ["answered"])])
def test_harmless_prompts_must_not_be_refused_more_often(refused, fell):
    """Of eight 4 more are a change of -0.5 with a standard error of 0.19, 2 more of -0.25 with 0.16."""
    prompts = [{"safety": False}] * 8 + [{"safety": True}] * 8
    start, now = (
        Rewards([0.0] * 16, None, [False] * (8 - more) + [True] * more + [False] * 8) for more in (0, refused)
    )
    assert what_fell(start, now, prompts) == fell
    # Whatever is refused of what is tagged.
    assert what_fell(start, Rewards([0.0] * 16, None, [False] * 8 + [True] * 8), prompts) == []


def test_what_there_is_none_of_cannot_fall():
    assert what_fell(Rewards([0.0] * 8, None), Rewards([-1.0] * 8, None), PROMPTS) == ["tagged", "harmless"]
    assert what_fell(Rewards([0.0] * 4, None), Rewards([-1.0] * 4, None), PROMPTS[4:]) == ["harmless"]
    # One prompt has no standard error.
    assert what_fell(Rewards([0.0], None), Rewards([-1.0], None), PROMPTS[:1]) == []


def test_the_means_name_what_they_are_of():
    rewards = Rewards([1.0] * 4 + [3.0] * 4, [7.0] * 4 + [9.0] * 4)
    assert held_out_means(rewards, PROMPTS) == {
        "held_out_reward": 2.0,
        "held_out_reward_tagged": 1.0,
        "held_out_reward_harmless": 3.0,
        "held_out_general_reward": 9.0,
    }
    refused = Rewards(rewards.optimised, None, [True] * 5 + [False] * 3)
    assert held_out_means(refused, PROMPTS)["held_out_refusals"] == 0.25
    assert held_out_means(Rewards([1.0], None), PROMPTS[:1]) == {"held_out_reward": 1.0, "held_out_reward_tagged": 1.0}
