"""Scores and lengths of answers: of a model that goes by the length, one that does not, and pairs by hand."""

import math

import numpy as np
import pytest

from llama2_jax.evaluation.reward_lengths import length_effects


def test_by_hand():
    found = length_effects([1.0, 2.0, 0.0, 5.0], [0.0, 3.0, 0.0, 1.0], [9, 8, 7, 6], [5, 9, 2, 6])
    assert (found["answers"], found["pairs"]) == (8, 3), "equal lengths say nothing of which is preferred"
    assert found["longer_chosen"] == pytest.approx(2 / 3)
    # The first and the second pair's longer answers, and half of the third, whose scores are equal.
    assert found["longer_scored_higher"] == pytest.approx(2.5 / 3)
    assert found["longer_chosen_standard_error"] == pytest.approx(math.sqrt(2 / 9 / 3))


def test_a_model_that_goes_by_the_length():
    lengths = np.random.default_rng(0).integers(1, 1000, (2, 200))
    found = length_effects(*(2.0 * lengths), *lengths)
    assert found["score_correlation"] == pytest.approx(1) and found["difference_correlation"] == pytest.approx(1)
    assert found["longer_scored_higher"] == 1 and abs(found["longer_chosen"] - 0.5) < 0.15


def test_a_model_that_does_not_go_by_the_length():
    generator = np.random.default_rng(0)
    found = length_effects(*generator.normal(size=(2, 2000)), *generator.integers(1, 1000, (2, 2000)))
    # Four standard errors of a correlation of 2,000 pairs.
    assert abs(found["score_correlation"]) < 0.09 and abs(found["difference_correlation"]) < 0.09


def test_prompts_that_call_for_long_answers_are_not_in_the_difference():
    """Scores follow the prompts' usual lengths, and within a pair nothing does."""
    generator = np.random.default_rng(0)
    usual = generator.integers(10, 1000, 2000)
    lengths = usual + generator.integers(-5, 6, (2, 2000))
    found = length_effects(*(usual / 100 + generator.normal(0, 0.1, (2, 2000))), *lengths)
    assert found["score_correlation"] > 0.95 and abs(found["difference_correlation"]) < 0.09


def test_it_does_not_matter_which_answer_is_subtracted():
    scores, lengths = np.random.default_rng(0).integers(0, 20, (2, 2, 50))
    one, other = length_effects(*scores, *lengths), length_effects(*scores[::-1], *lengths[::-1])
    assert one["difference_correlation"] == pytest.approx(other["difference_correlation"])


def test_answers_of_one_length():
    found = length_effects([1.0, 2.0], [0.0, 3.0], [5, 5], [5, 5])
    assert found["pairs"] == 0 and found["longer_chosen"] is None and found["score_correlation"] is None
