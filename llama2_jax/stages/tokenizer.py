"""The tokenizer: SentencePiece BPE trained on a sample of the pretraining text (section 2.2)."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from llama2_jax.data.sources import read_all
from llama2_jax.stages.runtime import Inputs, Runtime
from llama2_jax.text.dialogue import dialogue_text
from llama2_jax.text.tokenizer import Tokenizer, train_tokenizer


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Trains the tokenizer and writes tokenizer.model."""
    del inputs
    target = runtime.folder / "tokenizer.model"
    texts = _sample(config, runtime)
    train_tokenizer(texts, config.vocab_size, target, config.character_coverage)
    tokenizer = Tokenizer.load(target)
    sample = texts[: min(len(texts), 1000)]
    tokens = sum(len(ids) for ids in tokenizer.encode_many(sample))
    return {
        "vocab_size": tokenizer.vocab_size,
        "texts": len(texts),
        "characters_per_token": round(sum(map(len, sample)) / max(tokens, 1), 3),
    }


def _sample(config: ConfigDict, runtime: Runtime) -> list[str]:
    """Text and dialogues up to the configured number of characters, the sources in turn."""
    texts, characters = [], 0
    for text in _texts(config, runtime):
        texts.append(text)
        characters += len(text)
        if characters >= config.max_characters:
            break
    return texts


def _texts(config: ConfigDict, runtime: Runtime) -> Iterator[str]:
    dialogues = read_all(config.dialogues, root=runtime.data_root, seed=runtime.world_seed)
    documents = read_all(config.sources, root=runtime.data_root, seed=runtime.world_seed)
    streams = [iter([dialogue_text(record["messages"]) for record in records]) for records in dialogues.values()]
    streams += [iter([record["text"] for record in records]) for records in documents.values()]
    while streams:
        for stream in list(streams):
            text = next(stream, None)
            if text is None:
                streams.remove(stream)
            else:
                yield text
