"""A version's rewards, violations and refusals, against numbers counted by hand."""

import math

import numpy as np
import pytest

from llama2_jax.evaluation.safety_summary import reward_differences, safety_summary, share_of


def adversarial(category="illicit", attack="plain", **fields):
    return {"safety": True, "category": category, "attack": attack, **fields}


PROMPTS = [
    adversarial(), adversarial(), adversarial(attack="role_play"), adversarial("hateful", "role_play"),
    {"safety": False, "category": "fact"}, {"safety": False, "category": "fact"},
    {"safety": False, "category": "borderline"}, adversarial(seen=True),
]  # fmt: skip
VERDICTS = [
    {"violation": True}, {"violation": False}, {"violation": None}, {"violation": True},
    {"refusal": True}, None, {"refusal": True}, {"violation": True},
]  # fmt: skip
REWARDS = [{"helpfulness": float(index), "safety": -float(index)} for index in range(8)]


def logistic(*scores):
    return [1 / (1 + math.exp(-score)) for score in scores]


@pytest.fixture(scope="module")
def found():
    return safety_summary(PROMPTS, REWARDS, VERDICTS)


def test_shares_are_of_what_the_judge_decided_on_unseen_prompts(found):
    third = {"count": 2, "of": 3, "share": 2 / 3, "standard_error": pytest.approx(math.sqrt(2 / 9 / 3))}
    assert found["violations"] == third
    # A borderline prompt is a harmless one too.
    assert found["false_refusals"] == {"count": 2, "of": 2, "share": 1.0, "standard_error": 0.0}
    assert found["borderline_refusals"]["of"] == 1


def test_rewards_are_each_over_its_own_prompts_as_sigmoids(found):
    for kind, values in (("safety", logistic(0, -1, -2, -3)), ("helpfulness", logistic(4, 5, 6))):
        error = np.std(values, ddof=1) / math.sqrt(len(values))
        assert found["rewards"][kind] == {
            "mean": pytest.approx(np.mean(values)), "standard_error": pytest.approx(error), "answers": len(values),
        }  # fmt: skip
    assert sum(found["safety_scores"]) == 4 and found["safety_scores"][10] == 1


def test_violations_by_category_and_attack(found):
    assert {
        category: {attack: (cell["count"], cell["of"]) for attack, cell in attacks.items()}
        for category, attacks in found["violations_by"].items()
    } == {"illicit": {"plain": (1, 2), "role_play": (0, 0)}, "hateful": {"role_play": (1, 1)}}
    assert found["violations_by"]["illicit"]["role_play"]["share"] is None


def test_without_prompts_of_a_kind_nothing_is_said():
    found = safety_summary(PROMPTS[:1], REWARDS[:1], [None])
    assert found["rewards"]["helpfulness"] == {"mean": None, "standard_error": None, "answers": 0}
    assert found["rewards"]["safety"]["standard_error"] is None
    assert found["violations"] == {"count": 0, "of": 0, "share": None, "standard_error": None}


def test_prompts_of_files_that_name_no_attack():
    found = safety_summary([{"safety": True}] * 2, REWARDS[:2], [{"violation": True}] * 2)
    assert found["violations_by"] == {"": {"": {"count": 2, "of": 2, "share": 1.0, "standard_error": 0.0}}}


def test_rewards_are_compared_with_the_baseline_s_on_the_same_prompts():
    baseline = [{"helpfulness": 0.0, "safety": 0.0}] * 8
    found = reward_differences(PROMPTS, REWARDS, baseline)
    for kind, values in (("safety", logistic(0, -1, -2, -3)), ("helpfulness", logistic(4, 5, 6))):
        differences = np.asarray(values) - 0.5
        assert found[kind] == {
            "mean": pytest.approx(differences.mean()), "answers": len(values),
            "standard_error": pytest.approx(differences.std(ddof=1) / math.sqrt(len(values))),
        }  # fmt: skip
    same = reward_differences(PROMPTS, REWARDS, REWARDS)["safety"]
    assert (same["mean"], same["standard_error"]) == (0, 0)


def test_a_judge_may_give_parts():
    assert share_of([{"violation": 0.5}, {"violation": 1}], "violation")["share"] == 0.75
