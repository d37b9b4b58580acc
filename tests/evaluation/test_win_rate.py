"""Win rates against counts made by hand and a simulated standard error."""

import numpy as np
import pytest

from llama2_jax.evaluation.win_rate import WinRate, win_rate


def test_counts_by_hand():
    result = win_rate([1.0, 0.0, 0.5, 0.9], [0.0, 1.0, 0.5, 0.1])
    assert result == WinRate(wins=2, ties=1, losses=1)
    assert result.rate == pytest.approx(2 / 3)
    # sqrt(p (1 - p) / n) with p = 2/3 over the three decided prompts.
    assert result.standard_error == pytest.approx(0.2721655269759087)


def test_other_way_round_gives_the_other_share():
    generator = np.random.default_rng(0)
    ours, theirs = generator.integers(0, 4, (2, 200)) / 4
    forth, back = win_rate(ours.tolist(), theirs.tolist()), win_rate(theirs.tolist(), ours.tolist())
    assert (forth.wins, forth.ties, forth.losses) == (back.losses, back.ties, back.wins)
    assert forth.rate + back.rate == pytest.approx(1.0)
    assert forth.standard_error == pytest.approx(back.standard_error)
    assert forth.ties == int(np.sum(ours == theirs))


def test_against_itself_all_is_a_tie_and_nothing_is_known():
    result = win_rate([0.1, 0.2], [0.1, 0.2])
    assert result == WinRate(0, 2, 0)
    assert result.rate is None and result.standard_error is None


def test_no_prompts():
    assert win_rate([], []).rate is None


def test_prompts_that_were_not_judged_for_both_are_not_counted():
    result = win_rate([1.0, None, 0.5, None, 0.2], [0.0, 1.0, None, None, 0.2])
    assert result == WinRate(wins=1, ties=1, losses=0) and result.prompts == 2
    assert win_rate([None], [None]).rate is None


def test_differences_up_to_the_tie_are_ties():
    assert win_rate([0.5 + 1e-9], [0.5]) == WinRate(0, 1, 0)
    assert win_rate([0.55], [0.5], tie=0.1) == WinRate(0, 1, 0)
    assert win_rate([0.65], [0.5], tie=0.1) == WinRate(1, 0, 0)


def test_winning_all_leaves_no_standard_error():
    result = win_rate([1.0] * 5, [0.0] * 5)
    assert result.rate == 1.0 and result.standard_error == 0.0


def test_standard_error_is_the_spread_of_repeated_measurements():
    generator = np.random.default_rng(1)
    wins = generator.random((4000, 100)) < 0.7
    spread = np.std([win_rate(row.astype(float).tolist(), (1.0 - row).tolist()).rate for row in wins])
    # The spread of 4000 repetitions is itself known to about 1 / sqrt(2 * 4000) = 1.1 %; four times that.
    assert WinRate(70, 0, 30).standard_error == pytest.approx(spread, rel=0.045)


def test_different_numbers_of_prompts_are_refused():
    with pytest.raises(ValueError, match="zip"):
        win_rate([1.0, 2.0], [1.0])
