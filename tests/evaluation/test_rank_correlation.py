"""Rank correlations against SciPy's, and known ones."""

import numpy as np
import pytest
from scipy import stats

from llama2_jax.evaluation.rank_correlation import rank_correlation


@pytest.mark.parametrize("values", [3, 10, 1000], ids=lambda values: f"{values} values")
def test_against_scipy_with_ties(values):
    x, y = np.random.default_rng(0).integers(0, values, (2, 50))
    # The same float64 arithmetic in another order.
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_only_the_order_counts():
    x = [0.1, 0.5, 0.2, 3.0]
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1)
    assert rank_correlation(x, np.negative(x)) == pytest.approx(-1)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [3.0, 3.0])])
def test_without_an_order_there_is_none(x, y):
    assert rank_correlation(x, y) is None


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2 and 3 values"):
        rank_correlation([1, 2], [1, 2, 3])
