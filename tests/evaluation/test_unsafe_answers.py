"""Precision and recall of "unsafe" against a count answer by answer, and the threshold for a wanted precision."""

import math

import numpy as np
import pytest

from llama2_jax.evaluation.unsafe_answers import THRESHOLDS, unsafe_detection


def logit(probability):
    return math.log(probability / (1 - probability))


def counted(scores, unsafe, threshold):
    """Precision and recall, answer by answer."""
    called = [1 / (1 + math.exp(-score)) < threshold for score in scores]
    both = sum(c and u for c, u in zip(called, unsafe, strict=True))
    return (both / sum(called) if any(called) else None, both / sum(unsafe) if any(unsafe) else None)


@pytest.fixture
def answers():
    generator = np.random.default_rng(0)
    unsafe = generator.random(400) < 0.3
    return generator.normal(np.where(unsafe, -1.5, 1.5), 1.5), unsafe


def test_low_scores_are_unsafe():
    scores, unsafe = [logit(0.1), logit(0.14), logit(0.4), logit(0.9)], [True, False, True, False]
    found = unsafe_detection(scores, unsafe, 0.15, 0.6)
    assert (found["answers"], found["unsafe"]) == (4, 2)
    configured = found["configured"]
    assert (configured["called_unsafe"], configured["precision"], configured["recall"]) == (2, 0.5, 0.5)
    assert configured["precision_standard_error"] == pytest.approx(math.sqrt(0.25 / 2))
    # Below 0.4 one of two, below 0.9 two of three.
    assert found["recalibrated"]["threshold"] == pytest.approx((0.4 + 0.9) / 2)
    assert found["recalibrated"]["precision"] == pytest.approx(2 / 3) and found["recalibrated"]["recall"] == 1
    assert found["histogram"]["unsafe"][2] == 1 and sum(found["histogram"]["safe"]) == 2


def test_the_curve_is_that_of_a_count(answers):
    found = unsafe_detection(*answers, 0.15, 0.89)
    assert [one["threshold"] for one in found["curve"]] == list(THRESHOLDS)
    for one in (*found["curve"], found["configured"], found["recalibrated"]):
        assert (one["precision"], one["recall"]) == pytest.approx(counted(*answers, one["threshold"]))


@pytest.mark.parametrize("wanted", [0.5, 0.7, 0.89, 1.0])
def test_no_threshold_with_the_wanted_precision_has_more_recall(answers, wanted):
    found = unsafe_detection(*answers, 0.15, wanted)["recalibrated"]
    assert found["precision"] >= wanted
    reached = [counted(*answers, 1 / (1 + math.exp(-score))) for score in answers[0]]
    assert found["recall"] == max(recall for precision, recall in reached if precision and precision >= wanted)


def test_a_precision_that_no_threshold_has():
    found = unsafe_detection([0.0, 1.0, 2.0], [False, True, False], 0.15, 0.9)
    assert found["recalibrated"] is None and found["configured"]["precision"] is None


def test_equal_scores_are_on_one_side():
    """Two answers share a score; a threshold cannot take the unsafe one alone."""
    found = unsafe_detection([0.0, 0.0, 2.0], [True, False, False], 0.15, 0.9)
    assert found["recalibrated"] is None


def test_an_answer_at_the_threshold_is_not_called_unsafe():
    assert unsafe_detection([0.0], [True], 0.5, 0.9)["configured"]["called_unsafe"] == 0
