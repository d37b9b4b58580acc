"""A tokenizer trained on a few texts, written where a test wants it."""

from etils import epath

from llama2_jax.text.tokenizer import Tokenizer, train_tokenizer
from llama2_jax.training.atomic_files import write_atomically


def trained_tokenizer(texts, vocab_size, path, character_coverage=0.99995):
    write_atomically(path, train_tokenizer(texts, vocab_size, character_coverage))
    return Tokenizer.load(epath.Path(path))
