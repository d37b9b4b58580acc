"""Self-BLEU at its ends and between."""

import pytest

from llama2_jax.evaluation.self_bleu import self_bleu


def test_answers_that_are_all_the_same_have_a_hundred():
    assert self_bleu(["Bake the bread in an oven."] * 4) == pytest.approx(100)


def test_answers_with_no_word_in_common_have_nothing():
    assert self_bleu(["one two three four", "five six seven eight"]) == pytest.approx(0, abs=0.01)


def test_it_falls_as_answers_differ_more():
    alike = self_bleu(["the cat sat on the mat", "the cat sat on the rug", "the cat sat on the bed"])
    less = self_bleu(["the cat sat on the mat", "the dog sat on the rug", "a cat lay on the bed"])
    assert 100 > alike > less > 0


def test_by_hand():
    """Two words of three in common, one pair of two, no triple: smoothed as SacreBLEU does (half a match)."""
    expected = 100 * (2 / 3 * 1 / 2 * 1 / 2) ** (1 / 3)
    assert self_bleu(["a b c", "a b d"]) == pytest.approx(expected)


def test_one_answer_alone():
    with pytest.raises(ValueError, match="compares texts with each other; there is 1"):
        self_bleu(["alone"])
