"""Gwet's coefficients, on the data sets of his book with what his own program gives for them."""

import numpy as np
import pytest

from llama2_jax.evaluation.agreement import gwet, ordinal_weights

NONE = None
# Gwet 2014: twelve subjects, four raters.
FOUR_RATERS = [
    (1, 1, NONE, 1), (2, 2, 3, 2), (3, 3, 3, 3), (3, 3, 3, 3), (2, 2, 2, 2), (1, 2, 3, 4), (4, 4, 4, 4), (1, 1, 2, 1),
    (2, 2, 2, 2), (NONE, 5, 5, 5), (NONE, NONE, 1, 1), (NONE, NONE, 3, NONE),
]  # fmt: skip
# A hundred patients by two abstractors.
TWO_RATERS = [[13, 0, 0], [0, 20, 7], [0, 4, 56]]


def test_with_missing_ratings():
    assert gwet(FOUR_RATERS, range(1, 6)) == pytest.approx(0.77544, abs=1e-5)
    assert gwet(FOUR_RATERS, range(1, 6), ordinal_weights(5)) == pytest.approx(0.89894, abs=1e-5)
    quadratic = 1 - np.subtract.outer(np.arange(5), np.arange(5)) ** 2 / 16
    assert gwet(FOUR_RATERS, range(1, 6), quadratic) == pytest.approx(0.914, abs=1e-5)


def test_of_two_raters():
    ratings = [(a, b) for a in range(3) for b in range(3) for _ in range(TWO_RATERS[a][b])]
    assert gwet(ratings, range(3)) == pytest.approx(0.84933, abs=1e-5)
    assert gwet(ratings, range(3), ordinal_weights(3)) == pytest.approx(0.92519, abs=1e-5)


def test_ordinal_weights():
    np.testing.assert_allclose(ordinal_weights(3), [[1, 2 / 3, 0], [2 / 3, 1, 2 / 3], [0, 2 / 3, 1]])


def test_its_ends():
    assert gwet([("a", "a"), ("b", "b")], "ab") == 1.0
    assert gwet([("a", "b"), ("b", "a")], "ab") == pytest.approx(-1.0)
    assert gwet([("a", None)], "ab") is None and gwet([], "ab") is None
    with pytest.raises(ValueError, match=r"ratings \['c'\] are none of the categories \['a', 'b'\]"):
        gwet([("a", "c")], "ab")
