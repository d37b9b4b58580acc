"""Numbers and their words are each other's inverse."""

import pytest

from llama2_jax.inference.number_words import in_words, with_digits


def test_every_number_comes_back():
    for number in range(1000):
        assert with_digits(f"({in_words(number)})") == f"({number})"


def test_numbers_in_a_text():
    text = "Six and forty-eight, three hundred five; someone's ten tents, Nineteen"
    assert with_digits(text) == "6 and 48, 305; someone's 10 tents, 19"
    assert with_digits("one two") == "1 2" and with_digits("one hundred and one") == "101"


def test_beyond_a_thousand():
    assert in_words(-21) == "minus twenty-one"
    with pytest.raises(ValueError, match="1000"):
        in_words(1000)
