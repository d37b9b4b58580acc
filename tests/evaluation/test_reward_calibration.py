"""Calibration of differences: of models that keep what they claim, and of such that claim too much."""

import math

import numpy as np
import pytest

from llama2_jax.evaluation.reward_calibration import calibration, score_histogram, sigmoid


def differences(pairs, sharpness, seed=0):
    """Differences d of which sigmoid(d) are won, scaled by `sharpness`."""
    generator = np.random.default_rng(seed)
    d = generator.normal(0, 2, pairs)
    return sharpness * np.where(generator.random(pairs) < 1 / (1 + np.exp(-np.abs(d))), np.abs(d), -np.abs(d))


def test_by_hand():
    # sigmoid(log 3) is 0.75, sigmoid(log 1.5) is 0.6, which begins a bin.
    d = [math.log(3), -math.log(3), math.log(3), 0.0, math.log(1.5) + 1e-9]
    found = calibration(d, np.zeros(5))
    assert [(one["from"], one["to"], one["pairs"]) for one in found["bins"]] == [
        (0.5, 0.6, 1), (0.6, 0.7, 1), (0.7, 0.8, 3),
    ]  # fmt: skip
    assert [one["claimed"] for one in found["bins"]] == pytest.approx([0.5, 0.6, 0.75])
    assert [one["right"] for one in found["bins"]] == pytest.approx([0.5, 1, 2 / 3]), "a tie counts half"
    assert found["bins"][2]["standard_error"] == pytest.approx(math.sqrt(2 / 9 / 3))
    assert found["expected_calibration_error"] == pytest.approx((0.4 * 1 + (0.75 - 2 / 3) * 3) / 5)


def test_a_model_that_keeps_what_it_claims():
    found = calibration(differences(40_000, 1.0), np.zeros(40_000))
    # Five bins of thousands of pairs, whose shares err by less than 0.01.
    assert found["expected_calibration_error"] < 0.01
    assert all(abs(one["claimed"] - one["right"]) < 4 * one["standard_error"] for one in found["bins"])


def test_a_model_that_claims_too_much():
    found = calibration(differences(40_000, 3.0), np.zeros(40_000))
    assert found["expected_calibration_error"] > 0.1
    assert all(one["claimed"] > one["right"] for one in found["bins"][1:])


def test_only_the_difference_counts():
    d = differences(100, 1.0)
    assert (
        calibration(d + 5, np.full(100, 5.0))["bins"][0]["pairs"] == calibration(d, np.zeros(100))["bins"][0]["pairs"]
    )


def test_no_pairs():
    assert calibration([], []) == {"pairs": 0, "expected_calibration_error": None, "bins": []}


def test_sigmoids_of_large_scores_do_not_overflow():
    with np.errstate(all="raise"):
        assert sigmoid([-1000.0, 0.0, 1000.0]).tolist() == [0, 0.5, 1]


def test_every_score_is_in_the_histogram():
    scores = [-1000.0, -3.0, 0.0, 0.001, 1000.0]
    assert score_histogram(scores, bins=4) == [2, 0, 2, 1]
    assert sum(score_histogram(np.random.default_rng(0).normal(0, 9, 500))) == 500
