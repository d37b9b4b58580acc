"""The standard error of a share is that of the mean of zeros and ones."""

import numpy as np
import pytest

from llama2_jax.evaluation.binomial import Z_95, binomial_error, wilson_interval


def test_it_is_the_error_of_a_mean_of_zeros_and_ones():
    cases = np.asarray([1] * 30 + [0] * 70)
    assert binomial_error(cases.mean(), len(cases)) == pytest.approx(cases.std() / np.sqrt(len(cases)))
    assert binomial_error(1.0, 5) == 0


@pytest.mark.parametrize(("found", "count"), [(0, 10), (1, 10), (30, 100), (64, 90), (200, 200)])
def test_the_ends_of_wilson_s_interval_are_shares_that_just_allow_what_was_found(found, count):
    for end in wilson_interval(found, count):
        # |found / count - p| = z sqrt(p (1 - p) / count), which defines the interval.
        assert abs(found / count - end) == pytest.approx(Z_95 * binomial_error(end, count), abs=1e-7)


def test_wilson_s_interval_has_a_length_where_nothing_or_everything_was_found():
    low, high = wilson_interval(0, 200)
    assert low == 0 and 0.018 < high < 0.02
    assert wilson_interval(200, 200) == (pytest.approx(1 - high), 1.0)
    with pytest.raises(ValueError, match="0 cases"):
        wilson_interval(0, 0)
