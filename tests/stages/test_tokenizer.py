"""The tokenizer's stage: what its sample of the text is made of."""

import json

import pytest
from ml_collections import ConfigDict

from llama2_jax.stages import tokenizer
from tests.smallest import smallest_runtime

SENTENCE = "call me ishmael. "
BOOK = SENTENCE * 2000  # 34,000 characters


@pytest.fixture
def runtime(tmp_path):
    (tmp_path / "books.jsonl").write_text("".join(json.dumps({"text": BOOK}) + "\n" for _ in range(3)))
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps({"text": f"{n} facts. " * 20}) + "\n" for n in range(500)))
    return smallest_runtime(tmp_path)


def config(characters, **weights):
    return ConfigDict(
        {
            "sources": {
                name: {"path": f"{name}.jsonl", "format": "text", "weight": weight} for name, weight in weights.items()
            },
            "dialogues": {},
            "vocab_size": 300,
            "character_coverage": 1.0,
            "max_characters": characters,
            "model": "",
            "chat_format": "llama2",
        }
    )


@pytest.mark.parametrize(("books", "facts", "share"), [(1.0, 1.0, 0.5), (3.0, 1.0, 0.75)])
def test_a_book_does_not_fill_the_sample(runtime, books, facts, share):
    texts = tokenizer._sample(config(40_000, books=books, facts=facts), runtime)
    assert 40_000 <= sum(map(len, texts)) < 40_000 + tokenizer.PIECE
    assert sum(len(text) for text in texts if "ishmael" in text) / 40_000 == pytest.approx(share, abs=0.11)


def test_a_small_source_is_used_up_and_nothing_is_taken_twice(runtime):
    texts = tokenizer._sample(config(10**9, books=1.0, facts=1.0), runtime)
    assert sum(map(len, texts)) == 3 * len(BOOK) + sum(len(f"{n} facts. " * 20) for n in range(500))


def test_a_name_given_twice_is_refused(runtime):
    twice = config(10_000, books=1.0, facts=1.0)
    twice.dialogues = {"facts": {"path": "facts.jsonl", "format": "text"}}
    with pytest.raises(ValueError, match=r"both have the source\(s\) facts"):
        tokenizer._sample(twice, runtime)


def test_a_weight_of_0_is_refused(runtime):
    with pytest.raises(ValueError, match="the weight of facts is 0; wanted more, or leave the source out"):
        tokenizer._sample(config(10_000, books=1.0, facts=0.0), runtime)


def test_the_stage_trains_a_tokenizer_and_says_how_well_it_packs(runtime):
    results = tokenizer.run(config(100_000, books=1.0, facts=1.0), {}, runtime)
    assert results["vocab_size"] == 300
    assert 1 < results["characters_per_token"] < len(SENTENCE)
    assert (runtime.folder / "tokenizer.model").exists()


def test_a_tokenizer_that_is_there_is_taken_and_its_chat_format_written(runtime, tmp_path):
    settings = config(20_000, books=1.0, facts=1.0)
    tokenizer.run(settings, {}, runtime)
    trained = (runtime.folder / "tokenizer.model").read_bytes()
    assert json.loads((runtime.folder / "chat_format.json").read_text()) == {"name": "llama2"}
    (tmp_path / "mine.model").write_bytes(trained)
    other = smallest_runtime(tmp_path / "other")
    settings = config(20_000)
    settings.update({"model": str(tmp_path / "mine.model"), "chat_format": "vicuna"})
    tokenizer.run(settings, {}, other)
    assert (other.folder / "tokenizer.model").read_bytes() == trained
    assert json.loads((other.folder / "chat_format.json").read_text()) == {"name": "vicuna"}
    settings.vocab_size = 400
    with pytest.raises(ValueError, match="has 300 tokens; the model's vocab_size is 400"):
        tokenizer.run(settings, {}, other)
    with pytest.raises(ValueError, match="chat_format='chatml': choose one of llama2, alpaca"):
        tokenizer.check(ConfigDict({"chat_format": "chatml"}), {}, None)
