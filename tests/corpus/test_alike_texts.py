"""No two texts that are kept are nearly the same: beside a comparison of every pair by rouge-score itself."""

import itertools
import random

import pytest
from rouge_score import rouge_scorer

from llama2_jax.corpus.alike_texts import DistinctTexts

WORDS = ("name", "a", "tree", "bird", "the", "of", "list", "three", "big", "two")


def kept_by_comparing_every_pair(texts, most_alike):
    scorer, kept = rouge_scorer.RougeScorer(["rougeL"]), []
    for text in texts:
        if text not in kept and all(scorer.score(one, text)["rougeL"].fmeasure <= most_alike for one in kept):
            kept.append(text)
    return kept


@pytest.mark.parametrize("most_alike", [0.3, 0.5, 0.7, 0.8, 1.0])
def test_it_keeps_what_comparing_every_pair_keeps(most_alike):
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 10))) for _ in range(300)]
    distinct = DistinctTexts(most_alike)
    kept = [text for text in texts if distinct.add(text)]
    assert kept == kept_by_comparing_every_pair(texts, most_alike)
    assert len(distinct) == len(kept) and 1 < len(kept) < 300


def test_a_word_that_is_repeated_counts_as_often_as_both_have_it():
    distinct = DistinctTexts(0.7)
    assert distinct.add("tree tree tree tree")
    assert distinct.add("tree bird bird bird")
    assert not distinct.add("tree tree tree bird")


def test_given_texts_are_there_however_alike():
    distinct = DistinctTexts(0.7, ["name the first tree of all", "name the second tree of all"])
    assert len(distinct) == 2
    assert not distinct.add("name the second tree of them"), "0.83 with the second, 0.67 with the first"


def test_texts_without_words_are_the_same_only_if_equal():
    distinct = DistinctTexts(0.7)
    assert [distinct.add(text) for text in ("???", "!!!", "???", "是什么", "是什么")] == [
        True,
        True,
        False,
        True,
        False,
    ]


def test_few_pairs_are_compared(monkeypatch):
    """A bound on the score leaves out all that share too few words."""
    compared = []
    original = rouge_scorer.RougeScorer.score
    monkeypatch.setattr(
        rouge_scorer.RougeScorer, "score", lambda self, *texts: compared.append(texts) or original(self, *texts)
    )
    distinct = DistinctTexts(0.7)
    words = [f"word{number}" for number in range(40)]
    texts = [" ".join(pair) for pair in itertools.combinations(words, 2)]
    assert all(distinct.add(text) for text in texts)
    assert not compared, "two words of which one is the same: at most 0.5"
    assert not distinct.add("word0 word1 and"), "0.8"
    assert len(compared) == 1
