"""Reward-model accuracy by rating against a count in plain Python."""

import math

import numpy as np
import pytest

from llama2_jax.data.records import RATINGS
from llama2_jax.evaluation.reward_accuracy import GROUPS, accuracy_by_group, accuracy_by_rating


def test_by_hand():
    table = accuracy_by_rating(
        chosen=[2.0, 1.0, 0.0, 3.0],
        rejected=[1.0, 2.0, 0.0, -1.0],
        ratings=["better", "better", "slightly_better", "significantly_better"],
    )
    assert table["better"] == {"accuracy": 0.5, "standard_error": pytest.approx(math.sqrt(0.125)), "pairs": 2}
    assert table["slightly_better"]["accuracy"] == 0.5, "a tie counts half"
    assert table["significantly_better"] == {"accuracy": 1.0, "standard_error": 0.0, "pairs": 1}
    assert table["negligibly_better"] == {"accuracy": None, "standard_error": None, "pairs": 0}
    assert table["all"]["accuracy"] == pytest.approx((1 + 0 + 0.5 + 1) / 4) and table["all"]["pairs"] == 4


def test_against_a_count_in_plain_python():
    generator = np.random.default_rng(0)
    chosen, rejected = generator.integers(-3, 4, (2, 500)).astype(np.float32)
    ratings = generator.choice([*RATINGS, ""], 500).tolist()
    table = accuracy_by_rating(chosen, rejected, ratings)
    for name in GROUPS:
        pairs = [(c, r) for c, r, rating in zip(chosen, rejected, ratings, strict=True) if name in (rating, "all")]
        points = sum(1.0 if c > r else 0.5 if c == r else 0.0 for c, r in pairs)
        assert table[name]["pairs"] == len(pairs)
        assert table[name]["accuracy"] == pytest.approx(points / len(pairs), abs=1e-12)


def test_pairs_without_a_rating_count_under_all_alone():
    table = accuracy_by_rating([1.0, 1.0], [0.0, 2.0], ["", ""])
    assert table["all"]["pairs"] == 2 and table["all"]["accuracy"] == 0.5
    assert sum(table[name]["pairs"] for name in RATINGS) == 0


def test_the_better_scores_of_a_rating_do_not_matter_for_another():
    ratings = ["better", "slightly_better"]
    tables = [accuracy_by_rating([1, other], [0, 5], ratings) for other in (4, 6)]
    assert tables[0]["better"] == tables[1]["better"] and tables[0]["all"] != tables[1]["all"]


def test_no_pairs():
    assert accuracy_by_rating([], [], [])["all"] == {"accuracy": None, "standard_error": None, "pairs": 0}


def test_a_difference_that_float32_can_hold_is_not_a_tie():
    tiny = float(np.nextafter(np.float32(1), np.float32(2)))
    assert accuracy_by_rating([tiny], [1.0], ["better"])["all"]["accuracy"] == 1.0


@pytest.mark.parametrize("lengths", [(2, 1, 1), (1, 2, 1), (1, 1, 2)])
def test_different_lengths_are_refused_with_what_was_found(lengths):
    chosen, rejected, ratings = ([0.0] * lengths[0], [0.0] * lengths[1], ["better"] * lengths[2])
    message = f"{lengths[0]} chosen scores, {lengths[1]} rejected scores and {lengths[2]} ratings"
    with pytest.raises(ValueError, match=message):
        accuracy_by_rating(chosen, rejected, ratings)


def test_any_groups_of_pairs():
    table = accuracy_by_group([2.0, 1.0, 0.0, 3.0], [1.0, 2.0, 0.0, -1.0], ["b", "a", "", "b"])
    assert list(table) == ["b", "a"]
    assert table["b"] == {"accuracy": 1.0, "standard_error": 0.0, "pairs": 2}
    assert table["a"]["accuracy"] == 0.0
