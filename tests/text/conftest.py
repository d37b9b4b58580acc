"""Tokenizers to test with: one trained here, and the released one if the machine has it."""

import os
import pathlib
import random

import pytest

from llama2_jax.text.tokenizer import Tokenizer
from tests.trained_tokenizer import trained_tokenizer

DEFAULT_PATH = pathlib.Path(__file__).parents[3] / "shared/data/tokenizer/llama2/tokenizer.model"

TEXT = """the a of and to in is that it was for on are as with his they at be this have from or had by hot word but
what some we can out other were all there when up use your how said an each she river stone quiet garden answers
question INST SYS please explain Thank you Hello world 12 345 7 x = y + z ( ) [ ] / < > ! ? . , : ; - ' é ü ñ 日 本"""


def corpus(lines=3000, seed=0):
    draw, words = random.Random(seed), TEXT.split()
    return [" ".join(draw.choices(words, k=draw.randint(3, 20))) for _ in range(lines)]


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Tokenizer:
    return trained_tokenizer(corpus(), 480, tmp_path_factory.mktemp("tokenizer") / "tokenizer.model", 1.0)


@pytest.fixture(scope="session")
def released() -> Tokenizer:
    path = pathlib.Path(os.environ.get("LLAMA2_TOKENIZER", DEFAULT_PATH))
    if not path.is_file():
        pytest.skip(f"no released tokenizer at {path}: set LLAMA2_TOKENIZER to the tokenizer.model of Llama 2")
    return Tokenizer.load(path)


@pytest.fixture(params=["trained", "released"])
def tokenizer(request) -> Tokenizer:
    return request.getfixturevalue(request.param)
