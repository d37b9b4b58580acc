"""A small tokenizer to put beside models."""

import random

import pytest

from tests.trained_tokenizer import trained_tokenizer


@pytest.fixture(scope="session")
def tokenizer_model(tmp_path_factory):
    """The path of a tokenizer of 300 tokens."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices(["some", "words", "and", "[INST]", "spaces", "", "here"], k=12)) for _ in range(200)]
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    trained_tokenizer(texts, 300, path)
    return path
