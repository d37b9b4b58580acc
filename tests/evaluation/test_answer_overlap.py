"""Exact match and F1 of words against values counted by hand."""

import pytest

from llama2_jax.evaluation.answer_overlap import best_f1, exact_match, f1, normalized


def test_case_punctuation_articles_and_spaces_do_not_count():
    assert normalized(" The  cat, an old-one. ") == "cat oldone"
    assert exact_match("the Cat!", ["dog", "a cat"]) == 1.0
    assert exact_match("cats", ["cat"]) == 0.0


def test_f1_of_words():
    # One of two words, one of three: 2 * 1 / 5.
    assert best_f1("red cat", ["cat on mat"]) == pytest.approx(0.4)
    assert best_f1("red cat", ["dog", "red cat"]) == 1.0
    # A word counts as often as both have it.
    assert best_f1("cat cat", ["cat"]) == pytest.approx(2 / 3)
    assert best_f1("", ["cat"]) == 0.0 and best_f1("the", ["a"]) == 1.0


def test_with_several_references_each_is_left_out_once():
    # Against the second alone 0, against the first alone 1.
    assert f1("red cat", ["red cat", "dog"]) == pytest.approx(0.5)
    assert f1("red cat", ["red cat"]) == 1.0
    assert f1("red cat", ["red cat", "red cat", "dog"]) == 1.0
