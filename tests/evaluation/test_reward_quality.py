"""Rewards beside the judge's verdicts: of models that see the quality, the prompts alone, or nothing."""

import math

import numpy as np
import pytest

from llama2_jax.evaluation.reward_quality import BINS, bins_of, reward_quality


def compared(prompts, quality, reward, kind="helpfulness"):
    """The comparison of one kind, from the quality and the reward (logit) of each version's answers."""
    verdicts = {name: [None if value is None else {kind: value} for value in row] for name, row in quality.items()}
    rewards = {name: [{"helpfulness": value, "safety": value} for value in row] for name, row in reward.items()}
    return reward_quality(prompts, rewards, verdicts)[kind]


def harmless(category, count):
    return [{"safety": False, "category": category} for _ in range(count)]


def test_a_model_that_sees_the_quality():
    generator = np.random.default_rng(0)
    quality = {name: generator.random(60).tolist() for name in ("sft", "rlhf_v1")}
    found = compared(harmless("fact", 60), quality, {name: [3 * q for q in row] for name, row in quality.items()})
    assert found["answers"] == 120 and found["rank_correlation"] == pytest.approx(1)
    assert found["versions"]["sft"] == {"answers": 60, "rank_correlation": pytest.approx(1)}
    assert found["same_prompt"] == {"pairs": 60, "right": 1.0}
    assert sum(one["answers"] for one in found["bins"]) == 120 and len(found["bins"]) == BINS
    rewards = [one["reward"] for one in found["bins"]]
    assert rewards == sorted(rewards) and 0.5 <= rewards[0] < rewards[-1] <= 1 / (1 + math.exp(-3))


def test_a_model_that_knows_the_easy_category_and_nothing_else():
    """Over all prompts it looks good; within a category, and between answers to one prompt, it is blind."""
    generator = np.random.default_rng(0)
    prompts = [*harmless("fact", 300), *harmless("story", 300)]
    quality, reward = {}, {}
    for name in ("sft", "rlhf_v1"):
        quality[name] = np.concatenate([generator.random(300) / 2, 0.5 + generator.random(300) / 2]).tolist()
        reward[name] = np.concatenate([generator.random(300) - 2, generator.random(300) + 2]).tolist()
    found = compared(prompts, quality, reward)
    assert found["rank_correlation"] > 0.7
    # Four standard errors of a correlation of 600 answers, and of a share of 600 pairs.
    assert all(abs(one["rank_correlation"]) < 0.17 for one in found["categories"].values())
    assert abs(found["within_categories"]) < 0.12
    assert found["same_prompt"]["pairs"] == 600 and abs(found["same_prompt"]["right"] - 0.5) < 0.09


def test_each_model_is_compared_on_its_own_unseen_prompts():
    prompts = [
        {"safety": False, "category": "fact"},
        {"safety": True, "category": "harm"},
        {"safety": False, "category": "fact", "seen": True},
        {"safety": False},
    ]
    row = {"one": [0.1, 0.2, 0.3, 0.4]}
    found = compared(prompts, row, row)
    assert (found["prompts"], found["answers"]) == ("harmless", 2)
    assert found["categories"] == {"fact": {"answers": 1, "rank_correlation": None}}
    assert found["within_categories"] is None and found["same_prompt"] == {"pairs": 0, "right": None}
    safety = compared(prompts, row, row, "safety")
    assert (safety["prompts"], safety["answers"]) == ("adversarial", 1)


def test_what_the_judge_does_not_say_is_left_out():
    prompts = harmless("fact", 3)
    found = compared(prompts, {"one": [0.1, None, 0.3]}, {"one": [0.0, 1.0, -1.0]})
    assert found["answers"] == 2 and found["rank_correlation"] == pytest.approx(-1)
    assert compared(prompts, {"one": [None] * 3}, {"one": [0.0] * 3}) is None


def test_the_categories_weigh_by_their_answers():
    prompts = [*harmless("fact", 3), *harmless("story", 2), *harmless("one", 1)]
    found = compared(prompts, {"one": [1, 2, 3, 1, 2, 9]}, {"one": [1, 2, 3, 2, 1, 9]})
    assert found["within_categories"] == pytest.approx((3 * 1 + 2 * -1) / 5), "one answer has no order"


def test_bins_by_hand():
    found = bins_of([0.0, 0.1, 0.9, 1.0], [0.2, 0.4, 0.6, 1.0], bins=2)
    assert [(one["from"], one["to"], one["answers"]) for one in found] == [(0, 0.5, 2), (0.5, 1, 2)]
    assert [one["quality"] for one in found] == pytest.approx([0.05, 0.95])
    assert [one["reward"] for one in found] == pytest.approx([0.3, 0.8])
    # The standard deviation of two values is their distance over the root of two.
    assert [one["standard_error"] for one in found] == pytest.approx([0.1, 0.2])


def test_answers_of_one_quality_are_one_bin():
    (one,) = bins_of([0.5, 0.5], [0.1, 0.3])
    assert (one["answers"], one["reward"]) == (2, pytest.approx(0.2))
    assert bins_of([0.5], [0.1])[0]["standard_error"] is None
