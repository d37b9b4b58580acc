"""A SentencePiece model's table of replacements is found in its protocol buffer."""

import pytest

from llama2_jax.interop.sentencepiece_rules import replaces_characters
from tests.text.conftest import released, trained  # noqa: F401  fixtures
from tests.text.other_rules import RULES, train_with


@pytest.mark.parametrize("name", ["trained", "released"])
def test_a_llama_tokenizer_replaces_nothing(request, name):
    assert not replaces_characters(request.getfixturevalue(name)._processor.serialized_model_proto())


@pytest.mark.parametrize(
    ("name", "replaces"), [("nmt_nfkc", True), ("lower case", True), ("no extra spaces", False), ("unigram", False)]
)
def test_standard_rules(name, replaces):
    assert replaces_characters(train_with(RULES[name])) is replaces


def test_fields_of_every_kind_are_passed_over():
    unknown = b"\x98\x06\x80\x01" + b"\x99\x06" + bytes(8) + b"\x9d\x06" + bytes(4)  # field 99: number, 8 and 4 bytes
    assert replaces_characters(unknown + b"\x1a\x04\x18\x01" + b"\x12\x00") is False  # the table is empty
    assert replaces_characters(unknown + b"\x1a\x05\x18\x01" + b"\x12\x01x") is True
