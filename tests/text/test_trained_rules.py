"""A tokenizer trained here keeps the released one's rules (PAPER section 2.2), checked without the released file."""

import pytest
from sentencepiece import sentencepiece_model_pb2

from tests.text.conftest import corpus
from tests.text.odd_lines import odd_lines
from tests.trained_tokenizer import trained_tokenizer

BPE = 2  # TrainerSpec.ModelType


@pytest.fixture(scope="module")
def indented(tmp_path_factory):
    """Trained on indented text too, so that runs of spaces become pieces."""
    texts = [" " * (4 * (number % 4)) + line for number, line in enumerate(corpus(2000))]
    return trained_tokenizer(texts, 500, tmp_path_factory.mktemp("indented") / "tokenizer.model", 1.0)


def pieces(tokenizer, text):
    return [tokenizer._processor.id_to_piece(index) for index in tokenizer.encode(text)]


def test_the_settings_are_the_released_ones(indented):
    proto = sentencepiece_model_pb2.ModelProto.FromString(indented._processor.serialized_model_proto())
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    assert (trainer.model_type, trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id) == (BPE, 0, 1, 2, -1)
    assert trainer.split_digits and trainer.byte_fallback and trainer.allow_whitespace_only_pieces
    assert trainer.split_by_unicode_script and trainer.split_by_number and trainer.split_by_whitespace
    assert trainer.max_sentencepiece_length == 16
    assert (normalizer.name, normalizer.precompiled_charsmap) == ("identity", b"")
    assert normalizer.add_dummy_prefix and normalizer.escape_whitespaces and not normalizer.remove_extra_whitespaces


def test_digits_are_split(indented):
    assert pieces(indented, "a1234")[-4:] == ["1", "2", "3", "4"]


def test_characters_without_a_piece_are_encoded_as_bytes(indented):
    assert indented.encode("\U0001f999")[-4:] == [3 + byte for byte in "\U0001f999".encode()]


@pytest.mark.parametrize(("text", "compatible"), [("\ufb01ne", "fine"), ("e\u0301", "\u00e9"), ("\uff21", "A")])
def test_nothing_is_normalised(indented, text, compatible):
    assert indented.encode(text) != indented.encode(compatible)
    assert indented.decode(indented.encode(text)) == text


def test_runs_of_spaces_have_their_own_pieces(indented):
    spaces = [piece for piece in pieces(indented, "x" + " " * 12 + "x") if set(piece) == {"\u2581"}]
    assert max(map(len, spaces)) > 1


def test_a_space_is_added_before_a_text_and_removed_in_decoding(indented):
    assert pieces(indented, "the")[0].startswith("\u2581") and pieces(indented, " the") != pieces(indented, "the")
    assert indented.decode(indented.encode("the")) == "the" and indented.decode(indented.encode(" the")) == " the"


def test_any_text_comes_back_and_yields_no_special_id(indented):
    lines = odd_lines(2000, seed=1)
    encoded = indented.encode_many(lines, threads=1)
    assert [indented.decode(ids) for ids in encoded] == lines
    assert all(min(ids, default=3) >= 3 for ids in encoded)
