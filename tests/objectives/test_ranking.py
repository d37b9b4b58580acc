"""The ranking loss, its margins, rankings of several answers and the safety term."""

import itertools
import math

import jax
import numpy as np
import pytest

from llama2_jax.objectives.ranking import MARGINS, ranked_pairs_loss, ranking_loss, safety_auxiliary_loss

RATINGS = ("significantly_better", "better", "slightly_better", "negligibly_better")


@pytest.mark.parametrize(
    ("name", "margins"), [("none", (0, 0, 0, 0)), ("small", (1, 2 / 3, 1 / 3, 0)), ("large", (3, 2, 1, 0))]
)
def test_margins_are_those_of_table_27(name, margins):
    assert tuple(MARGINS[name][rating] for rating in RATINGS) == margins


def test_loss_is_log_2_if_the_difference_is_the_margin():
    margins = np.array(list(MARGINS["large"].values()), np.float32)
    np.testing.assert_allclose(ranking_loss(margins + 0.5, np.full(4, 0.5, np.float32), margins), np.log(2), rtol=1e-6)


def test_loss_equals_minus_log_sigmoid_in_float64():
    rng = np.random.default_rng(0)
    chosen, rejected, margin = (rng.normal(0, 3, 50).astype(np.float32) for _ in range(3))
    difference = chosen.astype(np.float64) - rejected - margin
    # float32 rounding of differences of size 10
    np.testing.assert_allclose(ranking_loss(chosen, rejected, margin), np.log1p(np.exp(-difference)), rtol=1e-5)


def test_large_score_differences_do_not_overflow():
    large = np.array([1e4, -1e4], np.float32)
    np.testing.assert_array_equal(ranking_loss(large, -large, np.zeros(2, np.float32)), [0.0, 2e4])


def test_safety_loss_is_the_cross_entropy_of_the_sigmoid_if_a_label_is_known():
    score = np.array([2.0, 2.0, -1.0, 30.0, 0.0], np.float32)
    is_safe = np.array([1, 0, 0, 1, 1])
    known = np.array([1, 1, 1, 1, 0])
    p = 1 / (1 + np.exp(-score.astype(np.float64)))
    wanted = np.array([-np.log(p[0]), -np.log(1 - p[1]), -np.log(1 - p[2]), -np.log(p[3]), 0.0])
    np.testing.assert_allclose(safety_auxiliary_loss(score, is_safe, known), wanted, rtol=1e-5, atol=1e-6)


def test_an_unknown_label_has_no_gradient():
    gradient = jax.grad(lambda s: safety_auxiliary_loss(s, np.array([1, 0]), np.array([True, False])).sum())
    found = gradient(np.array([0.0, 0.0], np.float32))
    np.testing.assert_allclose(found, [-0.5, 0.0])


def test_four_ranked_answers_by_hand():
    """Of scores 2, 1, 0 and 0.5, best first: six pairs, the last of which is the wrong way round."""
    scores = np.array([2.0, 1.0, 0.0, 0.5])
    better, worse = np.array(list(itertools.combinations(range(4), 2))).T
    # Differences 1, 2, 1.5, 1, 0.5 and -0.5; -log sigmoid of each.
    by_hand = (0.313262 + 0.126928 + 0.201413 + 0.313262 + 0.474077 + 0.974077) / 6
    found = ranked_pairs_loss(scores[better], scores[worse], np.full(6, 1 / 6)).sum()
    assert found == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("answers", [4, 6, 9])
def test_rankings_weigh_alike_whatever_the_number_of_answers(answers):
    """-1 / C(K, 2) times the sum of log sigmoid(r_w - r_l); log 2 where all scores are the same."""
    scores = np.random.default_rng(answers).normal(0, 2, answers)
    pairs = list(itertools.combinations(range(answers), 2))
    better, worse = np.array(pairs).T
    weight = np.full(len(pairs), 1 / math.comb(answers, 2))
    wanted = -sum(np.log(1 / (1 + np.exp(-(scores[w] - scores[x])))) for w, x in pairs) / math.comb(answers, 2)
    found = ranked_pairs_loss(scores[better].astype(np.float32), scores[worse].astype(np.float32), weight).sum()
    # float32 sums
    assert found == pytest.approx(wanted, rel=1e-5)
    zeros = np.zeros(len(pairs), np.float32)
    assert ranked_pairs_loss(zeros, zeros, weight).sum() == pytest.approx(np.log(2), rel=1e-5)
