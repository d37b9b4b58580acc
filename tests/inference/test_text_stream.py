"""Text is yielded token by token, and is complete at the end."""

import random

import pytest
import sentencepiece

from llama2_jax.inference.text_stream import text_pieces
from llama2_jax.text.tokenizer import Tokenizer
from tests.text.conftest import released, trained  # noqa: F401  fixtures
from tests.text.odd_lines import odd_lines
from tests.text.other_rules import RULES, train_with


@pytest.fixture(params=["trained", "released"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def byte(value):
    return 3 + value


def test_the_pieces_join_to_the_text(tokenizer):
    for line in ["", " ", *odd_lines(300, seed=3)]:
        assert "".join(text_pieces(tokenizer, tokenizer.encode(line))) == line


def test_the_pieces_of_random_ids_join_to_the_decoded_text(tokenizer):
    """Broken characters, single bytes, special ids in the middle: anything that a model may sample."""
    draw = random.Random(0)
    kinds = ((0, 3), (3, 259), (0x80 + 3, 0xC0 + 3), (0xE0 + 3, 0xF8 + 3), (259, tokenizer.vocab_size))
    for _ in range(2000):
        ids = [draw.randrange(*draw.choice(kinds)) for _ in range(draw.randint(0, 20))]
        assert "".join(text_pieces(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", RULES)
def test_the_pieces_are_the_text_whatever_the_rules(name):
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(train_with(RULES[name]))
    tokenizer = Tokenizer(processor)
    for line in ["", " ", *odd_lines(100, seed=5)]:
        ids = tokenizer.encode(line)
        assert "".join(text_pieces(tokenizer, ids)) == tokenizer.decode(ids)


def test_text_is_yielded_as_soon_as_it_is_certain(tokenizer):
    read = []

    def tokens():
        for token in tokenizer.encode("the river and the garden"):
            read.append(token)
            yield token

    text = ""
    for piece in text_pieces(tokenizer, tokens()):
        text += piece
        assert text == tokenizer.decode(read)


def test_a_character_is_delayed_until_its_last_byte(tokenizer):
    ids = [byte(value) for value in "\U0001f999".encode()] + [byte(ord("a"))]
    assert list(text_pieces(tokenizer, ids)) == ["\U0001f999", "a"]


def test_bytes_that_form_no_character_are_yielded_at_the_end(tokenizer):
    ids = [byte(value) for value in "\U0001f999".encode()[:3]]
    assert list(text_pieces(tokenizer, ids)) == ["\ufffd\ufffd\ufffd"]
    assert list(text_pieces(tokenizer, [*ids, byte(ord("a"))])) == ["\ufffd\ufffd\ufffda"]
