"""The standard error of a share is that of the mean of zeros and ones."""

import numpy as np
import pytest

from llama2_jax.evaluation.binomial import binomial_error


def test_it_is_the_error_of_a_mean_of_zeros_and_ones():
    cases = np.asarray([1] * 30 + [0] * 70)
    assert binomial_error(cases.mean(), len(cases)) == pytest.approx(cases.std() / np.sqrt(len(cases)))
    assert binomial_error(1.0, 5) == 0
