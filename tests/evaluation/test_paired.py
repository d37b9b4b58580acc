"""Paired differences against a slow computation."""

import math

import pytest

from llama2_jax.evaluation.paired import paired_difference


def test_the_mean_and_the_standard_error_by_hand():
    # Differences 1, 0, 2, 1: mean 1, variance (0 + 1 + 1 + 0) / 3.
    difference, error = paired_difference([11, 20, 32, 41], [10, 20, 30, 40])
    assert difference == 1.0 and error == pytest.approx(math.sqrt(2 / 3 / 4))


def test_what_both_have_in_common_is_not_in_the_error():
    assert paired_difference([0.1, 0.9, 0.5], [0.0, 0.8, 0.4]) == pytest.approx((0.1, 0.0))


def test_a_single_pair_has_no_error():
    assert paired_difference([0.75], [0.5]) == (0.25, None)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0, 2.0], [1.0]), ([], [])])
def test_values_without_a_partner_are_refused(ours, theirs):
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(ours, theirs)
