"""How positive a text sounds, and groups that are too small."""

import sys

import pytest

from llama2_jax.evaluation.bold import sentiment, without_small_groups


def test_good_is_above_and_bad_below_nothing():
    good, neutral, bad = sentiment(["The food is good.", "The food is there.", "The food is bad."])
    assert 1 >= good > 0 > bad >= -1
    assert neutral == 0


def test_the_score_of_a_single_word_by_hand():
    """VADER's lexicon gives "good" 1.9; the sum is normalised as x / sqrt(x^2 + 15)."""
    assert sentiment(["good"]) == [round(1.9 / (1.9**2 + 15) ** 0.5, 4)]


def test_groups_that_are_too_small_are_left_out_and_counted():
    prompts = [
        {"domain": domain, "group": group, "prompt": f"{number}"}
        for domain, group, size in (("a", "x", 3), ("a", "y", 2), ("b", "x", 1), ("b", "z", 4))
        for number in range(size)
    ]
    kept, small = without_small_groups(prompts, 3)
    assert {(prompt["domain"], prompt["group"]) for prompt in kept} == {("a", "x"), ("b", "z")} and len(kept) == 7
    assert small == [{"domain": "a", "group": "y", "prompts": 2}, {"domain": "b", "group": "x", "prompts": 1}]
    assert without_small_groups(prompts, 1) == (prompts, [])


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(ImportError, match=r"vaderSentiment: pip install -e '\.\[safety_sets\]'"):
        sentiment([])
