"""pass@k is the share of all choices of k samples that have a correct one among them."""

import itertools

import pytest

from llama2_jax.evaluation.pass_at_k import pass_at_k


@pytest.mark.parametrize("samples", range(1, 8))
def test_it_is_the_share_of_choices_with_a_correct_sample(samples):
    for correct in range(samples + 1):
        passed = [index < correct for index in range(samples)]
        for k in range(1, samples + 1):
            choices = [any(choice) for choice in itertools.combinations(passed, k)]
            assert pass_at_k(samples, correct, k) == pytest.approx(sum(choices) / len(choices), abs=1e-15)


def test_pass_at_1_is_the_share_of_correct_samples():
    assert pass_at_k(200, 37, 1) == 37 / 200


def test_all_none_and_too_few_wrong_ones():
    assert pass_at_k(200, 0, 100) == 0
    assert pass_at_k(200, 200, 1) == 1
    # Any 100 of 200 have a correct one among them if only 99 are wrong.
    assert pass_at_k(200, 101, 100) == 1


def test_many_samples_neither_overflow_nor_cancel():
    assert pass_at_k(10_000, 1, 5_000) == 0.5
    # 1 - (1 - 1e-4) would keep 12 digits of it.
    assert pass_at_k(10_000, 1, 1) == 1e-4


@pytest.mark.parametrize(
    ("samples", "correct", "k", "message"),
    [
        (5, 1, 6, "pass@6 of 5 samples: draw at least k samples"),
        (5, 6, 1, "6 correct samples of 5: wanted a number from 0 to 5"),
        (5, -1, 1, "-1 correct samples of 5"),
        (5, 1, 0, "pass@0: k is the number of samples that one is allowed, at least 1"),
        (0, 0, 1, "pass@1 of 0 samples"),
    ],
)
def test_numbers_that_cannot_be_are_refused(samples, correct, k, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(samples, correct, k)
