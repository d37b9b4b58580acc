"""Two reward models and the rule that makes one reward of them."""

import numpy as np
import pytest

from llama2_jax.pipeline import reward_models
from llama2_jax.pipeline.reward_models import RewardModels, Scores
from tests.smallest import smallest_model


def logit(probability):
    return float(np.log(probability / (1 - probability)))


@pytest.fixture
def models(monkeypatch):
    """Reward models whose scores are given: the parameters are the scores themselves."""
    monkeypatch.setattr(reward_models, "rewards", lambda model, params, sequences: np.asarray(params, np.float32))
    return lambda helpfulness, safety: RewardModels(smallest_model(), helpfulness, safety, safety_threshold=0.15)


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
    scores = models([logit(0.8)], [logit(safety)]).score([[1]], [tagged])
    # Logits of float32.
    np.testing.assert_allclose(scores.combined, [safety if used == "safety" else 0.8], rtol=1e-6)
    np.testing.assert_allclose(scores.logit, [logit(safety if used == "safety" else 0.8)], rtol=1e-6)


def test_each_answer_is_scored_by_its_own_prompt(models):
    scores = models([2.0, 2.0], [-1.0, -1.0]).score([[1], [1]], [True, False])
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
