"""The expected best and median of N answers: the mean over all subsets, from all answers, with its error."""

import itertools
import math

import numpy as np
import pytest

from llama2_jax.evaluation.best_of_curve import best_of_curve, expected_best, expected_median


def over_subsets(of_prompt, n, statistic):
    subsets = list(itertools.combinations([reward if math.isfinite(reward) else 0.0 for reward in of_prompt], n))
    return sum(statistic(subset) for subset in subsets) / len(subsets)


def slow_median(subset):
    ordered = sorted(subset)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


@pytest.mark.parametrize("n", range(1, 7))
def test_it_is_the_mean_over_all_subsets(n):
    rewards = np.random.default_rng(0).uniform(size=(5, 6))
    rewards[2, 1] = rewards[4] = -np.inf
    rewards[3, 2:4] = rewards[3, 0], np.nan  # a tie, and an answer that was not scored
    for fast, slow in ((expected_best, max), (expected_median, slow_median)):
        expected = [over_subsets(of_prompt, n, slow) for of_prompt in rewards.tolist()]
        # Sums of a few doubles in another order.
        np.testing.assert_allclose(fast(rewards, n), expected, rtol=1e-12)


def test_of_uniform_rewards_it_is_known_in_closed_form():
    """Of N uniform rewards the expected best is N / (N + 1), the median 1/2: also for 100 answers, beyond 64 bits."""
    rewards = np.random.default_rng(1).uniform(size=(2000, 100))
    for n in (1, 10, 50, 100):
        # Standard errors are 0.0065 or less: 100 answers' mean at N = 1, and the best of 10.
        assert expected_best(rewards, n).mean() == pytest.approx(n / (n + 1), abs=0.01)
        assert expected_median(rewards, n).mean() == pytest.approx(0.5, abs=0.01)


def test_using_all_answers_is_less_noisy_than_the_first_ones():
    rewards = np.random.default_rng(2).uniform(size=(2000, 16))
    first = rewards[:, :4].max(axis=1)
    assert expected_best(rewards, 4).mean() == pytest.approx(first.mean(), abs=0.02)
    assert expected_best(rewards, 4).var() < first.var() / 2


def test_the_order_of_the_answers_changes_nothing():
    rewards = np.random.default_rng(3).uniform(size=(4, 8))
    assert best_of_curve(rewards[:, ::-1]) == best_of_curve(rewards)


def test_the_curve_has_each_mean_with_its_error_over_prompts():
    rewards = np.random.default_rng(4).uniform(size=(7, 5))
    curve = best_of_curve(rewards)
    best, median = expected_best(rewards, 3), expected_median(rewards, 3)
    for name, values in (("max", best), ("median", median), ("gain", best - median)):
        assert len(curve[name]) == len(curve[f"{name}_standard_error"]) == 5
        assert curve[name][2] == pytest.approx(values.mean())
        assert curve[f"{name}_standard_error"][2] == pytest.approx(values.std(ddof=1) / math.sqrt(7))
    assert curve["gain"][0] == 0


def test_the_best_of_more_answers_is_never_worse():
    rewards = np.random.default_rng(1).uniform(size=(20, 16))
    rewards[rewards < 0.2] = -np.inf
    best = best_of_curve(rewards)["max"]
    assert len(best) == 16
    assert all(later >= earlier for earlier, later in itertools.pairwise(best))


def test_one_prompt_has_a_curve_without_errors():
    curve = best_of_curve(np.asarray([[0.2, 0.6]]))
    assert curve["max"] == pytest.approx([0.4, 0.6]) and curve["max_standard_error"] == [None, None]


@pytest.mark.parametrize("n", [0, 4])
def test_more_answers_than_there_are_is_an_error(n):
    with pytest.raises(ValueError, match=f"n={n} of 3 answers: give 1 to 3"):
        expected_best(np.ones((2, 3)), n)
