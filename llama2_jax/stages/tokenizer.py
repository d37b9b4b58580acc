"""The tokenizer: SentencePiece BPE trained on a sample of the pretraining text (section 2.2), or one that is there.

Writes tokenizer.model and chat_format.json, which names how dialogues are written for the models that use it
(text/chat_formats.py).
"""

from collections.abc import Mapping

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.paths import expand_home
from llama2_jax.pipeline.encoding import read_sources, source_weights
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.sharding.processes import from_first
from llama2_jax.text.chat_formats import FILE, chat_format, format_file
from llama2_jax.text.dialogue import dialogue_text
from llama2_jax.text.tokenizer import Tokenizer, train_tokenizer
from llama2_jax.training.atomic_files import write_atomically

PIECE = 4000  # characters


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Trains the tokenizer, or copies `model` if that is given, and writes its chat format."""
    del inputs
    target = runtime.folder / "tokenizer.model"
    one = chat_format(config.chat_format)
    texts = _sample(config, runtime)

    def make() -> None:
        if config.model:
            content = epath.Path(expand_home(config.model)).read_bytes()
        else:
            content = train_tokenizer(texts, config.vocab_size, config.character_coverage)
        write_atomically(target.parent / FILE, format_file(one))
        write_atomically(target, content)

    from_first(make)
    tokenizer = Tokenizer.load(target)
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(f"{target} has {tokenizer.vocab_size} tokens; the model's vocab_size is {config.vocab_size}")
    sample = texts[: min(len(texts), 1000)]
    tokens = sum(len(ids) for ids in tokenizer.encode_many(sample))
    return {
        "vocab_size": tokenizer.vocab_size,
        "texts": len(texts),
        "characters_per_token": round(sum(map(len, sample)) / max(tokens, 1), 3),
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the chat format is unknown."""
    del inputs, count
    chat_format(config.chat_format)


def _sample(config: ConfigDict, runtime: Runtime) -> list[str]:
    """Pieces of text and dialogues, each source by its weight, up to the configured number of characters."""
    if both := sorted(set(config.dialogues) & set(config.sources)):
        raise ValueError(
            f"tokenizer.sources and tokenizer.dialogues both have the source(s) {', '.join(both)}: give other names"
        )
    weights = source_weights(config.dialogues) | source_weights(config.sources)
    if wrong := sorted(name for name, weight in weights.items() if not weight):
        raise ValueError(f"tokenizer: the weight of {', '.join(wrong)} is 0; wanted more, or leave the source out")
    pieces = {name: _pieces(texts, runtime.seed) for name, texts in _texts(config, runtime).items()}
    texts, taken = [], dict.fromkeys(pieces, 0)
    while pieces and sum(taken.values()) < config.max_characters:
        name = min(pieces, key=lambda name: taken[name] / weights[name])
        texts.append(pieces[name].pop())
        taken[name] += len(texts[-1])
        if not pieces[name]:
            del pieces[name]
    return texts


def _texts(config: ConfigDict, runtime: Runtime) -> dict[str, list[str]]:
    one = chat_format(config.chat_format)
    dialogues = read_sources(config.dialogues, runtime, "dialogues")
    documents = read_sources(config.sources, runtime, "text")
    return {
        **{name: [dialogue_text(record["messages"], one) for record in records] for name, records in dialogues.items()},
        **{name: [record["text"] for record in records] for name, records in documents.items()},
    }


def _pieces(texts: list[str], seed: int) -> list[str]:
    """The texts, long ones cut, in a random order: one book must not fill the whole sample."""
    pieces = [text[begin : begin + PIECE] for text in texts for begin in range(0, len(text), PIECE)]
    return [pieces[index] for index in np.random.default_rng(seed).permutation(len(pieces))]
