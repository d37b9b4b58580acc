"""Two reward models and the rule that makes one reward of them."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.pipeline import reward_models
from llama2_jax.pipeline.reward_models import RewardModels, Scores, piecewise
from llama2_jax.pipeline.runtime import configured_function
from tests.smallest import smallest_model, smallest_runtime


def logit(probability):
    return float(np.log(probability / (1 - probability)))


@pytest.fixture
def models(monkeypatch):
    """Reward models whose scores are given: the parameters are the scores themselves."""
    monkeypatch.setattr(reward_models, "rewards", lambda model, params, sequences: np.asarray(params, np.float32))
    return lambda helpfulness, safety: RewardModels(smallest_model(), helpfulness, safety, piecewise(0.15))


@pytest.mark.parametrize(
    ("safety", "tagged", "used"),
    [
        (0.14, False, "safety"),
        (0.16, False, "helpfulness"),
        (0.99, False, "helpfulness"),
        (0.14, True, "safety"),
        (0.16, True, "safety"),
        (0.99, True, "safety"),
    ],
)
def test_safety_decides_below_the_threshold_and_for_tagged_prompts(models, safety, tagged, used):
    scores = models([logit(0.8)], [logit(safety)]).score([{"tokens": [1], "safety": tagged}])
    # Logits of float32.
    np.testing.assert_allclose(scores.combined, [safety if used == "safety" else 0.8], rtol=1e-6)
    np.testing.assert_allclose(scores.logit, [logit(safety if used == "safety" else 0.8)], rtol=1e-6)


def test_each_answer_is_scored_by_its_own_prompt(models):
    scores = models([2.0, 2.0], [-1.0, -1.0]).score([{"tokens": [1], "safety": tagged} for tagged in (True, False)])
    assert scores.logit.tolist() == [-1.0, 2.0]
    assert (scores.helpfulness.tolist(), scores.safety.tolist()) == ([2.0, 2.0], [-1.0, -1.0])


def test_one_answer_s_rewards_as_a_row_holds_them():
    scores = Scores(np.asarray([1.0, 2.0]), np.asarray([3.0, 4.0]), np.asarray([0.0, logit(0.9)]))
    row = scores.row(1)
    assert (row["helpfulness"], row["safety"]) == (2.0, 4.0)
    assert row["combined"] == pytest.approx(0.9, rel=1e-12)
    assert all(type(value) is float for value in row.values())


def test_extreme_logits_stay_finite():
    combined = Scores(np.zeros(2), np.zeros(2), np.asarray([-80.0, 80.0], np.float32)).combined
    assert np.isfinite(combined).all() and 0 < combined[0] < 1e-30 and combined[1] == 1.0


def longest(rows, helpfulness, safety, *, bonus):
    """A reward of a user's own."""
    return [len(row["tokens"]) + bonus + one for row, one in zip(rows, helpfulness, strict=True)]


def test_a_reward_of_ones_own_is_named_in_the_config(models, tmp_path):
    part = ConfigDict({"function": f"{__name__}.longest", "arguments": {"bonus": 0.5}})
    reward = configured_function(part, {}, smallest_runtime(tmp_path))
    own = dataclasses.replace(models([1.0, 2.0], [0.0, 0.0]), reward=reward)
    scores = own.score([{"tokens": [1]}, {"tokens": [1, 2, 3]}])
    assert scores.logit.tolist() == [2.5, 5.5]
    assert scores.helpfulness.tolist() == [1.0, 2.0]
