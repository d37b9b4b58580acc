"""Hugging Face's own tokenizers, reading our tokenizer.json, give SentencePiece's ids."""

import json

import pytest

from llama2_jax.interop.tokenizer_json import tokenizer_json
from tests.text.conftest import released, trained  # noqa: F401  fixtures
from tests.text.odd_lines import odd_lines

LINES = odd_lines(3000, seed=2)


@pytest.fixture(params=["trained", "released"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def content(tokenizer, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(tokenizer._processor.serialized_model_proto())
    return tokenizer_json(tmp_path / "tokenizer.model")


def test_fast_tokenizers_give_the_same_ids_and_text(tokenizer, content):
    tokenizers = pytest.importorskip("tokenizers", reason="the reference is Hugging Face's tokenizers")
    fast = tokenizers.Tokenizer.from_str(content)
    for line in ["", " ", *LINES]:
        encoded = fast.encode(line, add_special_tokens=False)
        assert encoded.ids == tokenizer.encode(line)
        assert fast.decode(encoded.ids) == line
    assert fast.encode("hello").ids == tokenizer.encode("hello", bos=True)


def test_the_vocabulary_and_its_special_tokens_are_in_it(tokenizer, content):
    content = json.loads(content)
    assert len(content["model"]["vocab"]) == tokenizer.vocab_size
    assert [(token["id"], token["content"]) for token in content["added_tokens"]] == [
        (0, "<unk>"),
        (1, "<s>"),
        (2, "</s>"),
    ]
