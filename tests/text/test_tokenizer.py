"""The tokenizer keeps Llama's rules for any text."""

import random

import numpy as np
import pytest
import sentencepiece

from llama2_jax.text.tokenizer import Tokenizer
from tests.text.conftest import corpus
from tests.text.other_rules import RULES, train_with
from tests.trained_tokenizer import trained_tokenizer

ODD_TEXTS = (
    "",
    " ",
    "      ",
    "a",
    " a",
    "   a  b   ",
    "\n",
    "\n\n a\n\tb \r\n",
    "1234 12.5e-3",
    "<s>hello</s><unk><0x0A>",
    "\x00\x01\x7f",
    "e\u0301 \u00e9 \u202e \u200b \u3000 \u00a0 \ufeff",
    "日本語 한국어 العربية हिन्दी",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 \U0010ffff",
    "[INST] <<SYS>>\nx\n<</SYS>>\n\ny [/INST]",
)


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_random_unicode_comes_back(tokenizer):
    draw = random.Random(0)
    ranges = ((0x20, 0x7F), (0, 0x20), (0xA0, 0x2FFF), (0x3000, 0xD7FF), (0xE000, 0x10FFFF), (0x20, 0x21))
    for _ in range(500):
        text = "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randint(0, 40)))
        text = text.replace("\u2581", "")  # the one exception, below
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_one_exception_is_sentencepieces_mark_for_a_space(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\u2581b")) == "a b"


def test_ids_from_the_middle_of_a_text_lose_their_leading_space(tokenizer):
    first, second = tokenizer.encode("the river"), tokenizer.encode("stone")
    assert tokenizer.decode(second) == "stone"
    assert tokenizer.decode(first + second) == "the river stone"


def other_rules(name):
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(train_with(RULES[name]))
    return Tokenizer(processor)


PROMPTS = (
    "the▁river",
    "the  river",
    " the river",
    "the river\n",
    "the river ",
    "ﬁne\u3000river",
    "THE",
    "é",
    "\ufeffa",
)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_text_after_a_prompt_is_its_own(tokenizer, prompt):
    for answer in (" garden", "garden", "  x", "\n", " \U0001f999", " ﬁ"):
        # What a model samples continues a text: it does not begin with the space that encoding puts in front.
        _, *ids = tokenizer.encode("|" + answer)
        ids = ids[1:] if tokenizer.decode([ids[0]]) == "|" else ids
        assert tokenizer.decode_after(tokenizer.encode(prompt, bos=True), ids) == answer


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("name", RULES)
def test_a_prompt_that_is_normalised_does_not_come_back(name, prompt):
    tokenizer = other_rules(name)
    before, ids = tokenizer.encode(prompt, bos=True), tokenizer.encode("quiet garden")
    after = tokenizer.decode_after(before, ids)
    assert after.strip() == "quiet garden"
    assert tokenizer.decode(before) + after == tokenizer.decode([*before, *ids])


def test_a_character_that_begins_before_is_a_part_of_what_follows(tokenizer):
    first, *rest = (3 + byte for byte in "\U0001f999".encode())
    before = [*tokenizer.encode("the river", bos=True), first]
    assert tokenizer.decode_after(before, rest) == "\U0001f999"
    assert tokenizer.decode_after([tokenizer.bos_id], tokenizer.encode("the river")) == "the river"
    assert tokenizer.decode_after(before, []) == ""


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_text_never_yields_special_ids(tokenizer, text):
    assert not {0, tokenizer.bos_id, tokenizer.eos_id} & set(tokenizer.encode(text))


def test_bos_and_eos_are_added_only_on_request(tokenizer):
    ids = tokenizer.encode("the river")
    assert tokenizer.encode("the river", bos=True) == [1, *ids]
    assert tokenizer.encode("the river", eos=True) == [*ids, 2]
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert tokenizer.decode([1, *ids, 2]) == "the river"


def test_many_texts_are_encoded_like_single_ones(tokenizer):
    texts = [*ODD_TEXTS, *corpus(200, seed=1)]
    for threads in (1, 3):
        for text, ids in zip(texts, tokenizer.encode_many(texts, threads), strict=True):
            assert ids.dtype == np.int32
            assert ids.tolist() == tokenizer.encode(text)


def test_broken_bytes_decode_to_the_replacement_character(tokenizer):
    assert tokenizer.decode([3 + 0xF0]) == "\ufffd"


def test_an_id_outside_the_vocabulary_is_refused(tokenizer):
    with pytest.raises(ValueError, match="vocabulary of"):
        tokenizer.decode([1, tokenizer.vocab_size])


def test_the_vocabulary_has_the_order_of_the_released_one(tokenizer, tmp_path):
    pieces = [tokenizer._processor.id_to_piece(index) for index in range(tokenizer.vocab_size)]
    assert pieces[:3] == ["<unk>", "<s>", "</s>"]
    assert pieces[3:259] == [f"<0x{byte:02X}>" for byte in range(256)]
    learned = pieces[259:]
    assert not [
        piece for piece in learned if sum(character.isdigit() and character.isascii() for character in piece) > 1
    ]
    # What text/dialogue.py relies on: no piece joins a space to something before it.
    assert not [piece for piece in learned if "\u2581" in piece.lstrip("\u2581")]
    assert max(map(len, learned)) <= 16


def test_digits_are_single_tokens(tokenizer):
    pieces = [tokenizer._processor.id_to_piece(index) for index in tokenizer.encode("1234")]
    assert [piece for piece in pieces if piece != "\u2581"] == ["1", "2", "3", "4"]


def test_a_trained_tokenizer_has_the_released_ones_settings(trained, released):
    from sentencepiece import sentencepiece_model_pb2

    protos = [
        sentencepiece_model_pb2.ModelProto.FromString(tokenizer._processor.serialized_model_proto())
        for tokenizer in (trained, released)
    ]
    fields = (
        "model_type", "split_by_unicode_script", "split_by_number", "split_by_whitespace", "split_digits",
        "treat_whitespace_as_suffix", "allow_whitespace_only_pieces", "byte_fallback", "max_sentencepiece_length",
        "unk_id", "bos_id", "eos_id", "pad_id", "unk_surface",
    )  # fmt: skip
    ours, theirs = ({name: getattr(proto.trainer_spec, name) for name in fields} for proto in protos)
    assert ours == theirs
    ours, theirs = (
        {
            name: getattr(proto.normalizer_spec, name)
            for name in ("name", "add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces")
        }
        for proto in protos
    )
    assert ours == theirs


def test_training_is_reproducible(tmp_path):
    for name in ("one", "two"):
        trained_tokenizer(corpus(500), 350, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_long_lines_are_learned_from_too(tmp_path):
    line = " ".join(corpus(800))
    assert len(line) > 4192
    assert trained_tokenizer([line], 350, tmp_path / "tokenizer.model").vocab_size == 350


def test_training_is_silent(tmp_path, capfd):
    trained_tokenizer(corpus(300), 350, tmp_path / "tokenizer.model")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"),
    [
        (["hello there"], 1000, "give more text or a smaller vocab_size"),
        ([], 1000, "no tokenizer of vocab_size=1000"),
        (["", "\n"], 1000, "no tokenizer of vocab_size=1000"),
        (["abcdefghijklmnopqrstuvwxyz"], 262, "raise vocab_size or lower character_coverage"),
    ],
)
def test_a_corpus_that_does_not_fit_is_refused(tmp_path, texts, vocab_size, message):
    with pytest.raises(ValueError, match=message):
        trained_tokenizer(texts, vocab_size, tmp_path / "tokenizer.model")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"not a model at all")
    with pytest.raises(ValueError, match=r"tokenizer\.model .* is not a SentencePiece model"):
        Tokenizer.load(tmp_path / "tokenizer.model")
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(tmp_path / "absent.model")


def test_a_tokenizer_without_eos_is_refused(tmp_path):
    import io

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(300)), model_writer=model, vocab_size=120, eos_id=-1, minloglevel=2
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    with pytest.raises(ValueError, match="no BOS or no EOS"):
        Tokenizer.load(tmp_path / "tokenizer.model")
