"""The tokenizer: SentencePiece BPE with Llama's rules (section 2.2)."""

import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import sentencepiece
from etils import epath
from jaxtyping import Int

from llama2_jax.paths import expand_home
from llama2_jax.text.chat_formats import LLAMA2, ChatFormat, format_beside

# SentencePiece ignores training sentences of more than 4192 bytes; a UTF-8 character has at most 4.
_MAX_SENTENCE_CHARACTERS = 1024
# Texts are encoded in chunks, after each of which the ids become arrays, with a seventh of a list's memory.
_TEXTS_PER_CHUNK = 4096


class Tokenizer:
    """Encodes text as token ids, and decodes ids.

    No text yields the ids of BOS, EOS or the unknown token; BOS and EOS are added on request. decode(encode(text)) is
    the text for all UTF-8, with one exception: SentencePiece writes a space as U+2581, so a U+2581 in the text comes
    back as a space. SentencePiece adds a space before the text and removes it in decoding, so ids from the middle of a
    text lose a leading space when they are decoded separately.

    `chat_format` is how dialogues are written for the models that read these ids, and `end_id` the token that ends an
    answer in it: EOS, or where the format's utterances end with a token of their own, the unknown token. No text yields
    that one, so it has no meaning yet, and the vocabulary stays as it is.
    """

    def __init__(self, processor: sentencepiece.SentencePieceProcessor, chat_format: ChatFormat = LLAMA2):
        self._processor = processor
        self.chat_format = chat_format
        self.vocab_size: int = processor.vocab_size()
        self.bos_id: int = processor.bos_id()
        self.eos_id: int = processor.eos_id()
        self.unk_id: int = processor.unk_id()
        self.end_id: int = self.unk_id if chat_format.ends_turns else self.eos_id
        # For tools that need one: of the two that no text yields, the one that ends no answer.
        self.padding_id: int = self.eos_id if chat_format.ends_turns else self.unk_id
        if min(self.bos_id, self.eos_id) < 0:
            raise ValueError(f"the tokenizer has no BOS or no EOS token (ids {self.bos_id}, {self.eos_id})")

    @classmethod
    def load(cls, path: epath.PathLike) -> "Tokenizer":
        """Reads a SentencePiece model, such as the released tokenizer.model, and the chat format named beside it.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: if the file is not a SentencePiece model with BOS and EOS, or no chat format is named beside it.
        """
        content = epath.Path(expand_home(path)).read_bytes()
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(content)
        except RuntimeError as error:
            raise ValueError(f"{path} ({len(content)} bytes) is not a SentencePiece model: {error}") from error
        return cls(processor, format_beside(expand_home(path)))

    def encode(self, text: str, bos: bool = False, eos: bool = False) -> list[int]:
        """Returns the ids of a text, with BOS before and EOS after it on request.

        Raises:
          ValueError: if it is not a string, or has half of a surrogate pair, which is not Unicode text.
        """
        if not isinstance(text, str):
            raise ValueError(f"the text is {text!r:.60}, of type {type(text).__name__}; wanted a string")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"character {error.start} of the text is half of a surrogate pair") from error
        return [self.bos_id] * bos + self._processor.encode(text) + [self.eos_id] * eos

    def encode_many(self, texts: Sequence[str], threads: int = -1) -> list[Int[np.ndarray, " tokens"]]:
        """Returns the ids of many texts, without BOS and EOS, as int32 arrays.

        Args:
          texts: the texts.
          threads: how many to use; -1 for one a CPU core. The result does not depend on it.
        """
        encoded = []
        for start in range(0, len(texts), _TEXTS_PER_CHUNK):
            chunk = self._processor.encode(list(texts[start : start + _TEXTS_PER_CHUNK]), num_threads=threads)
            encoded += [np.asarray(ids, np.int32) for ids in chunk]
        return encoded

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids. BOS, EOS and `end_id` have none; bytes that are not UTF-8 become U+FFFD.

        Raises:
          ValueError: if an id is outside the vocabulary.
        """
        ids = [int(token) for token in ids]
        if ids and not (min(ids) >= 0 and max(ids) < self.vocab_size):
            raise ValueError(f"ids from {min(ids)} to {max(ids)} in a vocabulary of {self.vocab_size}")
        if self.chat_format.ends_turns:  # the unknown token is decoded as a mark of its own
            ids = [token for token in ids if token != self.end_id]
        return self._processor.decode(ids)

    def piece(self, token: int) -> str:
        """Returns how the vocabulary writes an id, such as "<s>" for BOS."""
        return self._processor.id_to_piece(token)

    def decode_after(self, before: Sequence[int], ids: Iterable[int]) -> str:
        """Returns the text that ids add after others, such as a sampled answer's after its prompt's.

        Decoded on their own they would lose a leading space. The text before them may not be the one that was encoded:
        a tokenizer may normalise it.

        Raises:
          ValueError: as `decode`.
        """
        earlier, text = self.decode(before), self.decode([*before, *ids])
        # The last bytes before may be the beginning of a character.
        return text[next((i for i, (a, b) in enumerate(zip(earlier, text, strict=False)) if a != b), len(earlier)) :]


def train_tokenizer(texts: Iterable[str], vocab_size: int, character_coverage: float = 0.99995) -> bytes:
    """Trains a tokenizer with the rules of the released one and returns its model, the content of a tokenizer.model.

    BPE; unk, bos, eos = 0, 1, 2 and no padding token; the 256 bytes as fallback, so that no character is unknown;
    digits split; no normalisation; runs of spaces kept. Newlines are bytes, as in the released tokenizer, whose corpus
    was read line by line. The result depends only on the texts and their order.

    Args:
      texts: the corpus.
      vocab_size: the number of ids, special tokens and bytes included.
      character_coverage: the fraction of the corpus's characters that get their own ids; the rest are encoded as bytes.

    Raises:
      ValueError: if the corpus is too small or has too many different characters for the vocabulary.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            byte_fallback=True,
            split_digits=True,
            split_by_unicode_script=True,
            split_by_number=True,
            split_by_whitespace=True,
            allow_whitespace_only_pieces=True,
            add_dummy_prefix=True,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            max_sentencepiece_length=16,
            unk_surface=" \u2047 ",
            # All sentences are used, in order: a sample drawn inside the library would not be reproducible.
            input_sentence_size=0,
            shuffle_input_sentence=False,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"no tokenizer of vocab_size={vocab_size} can be trained on these texts. SentencePiece says: {error}. "
            "If the vocabulary is too high for them, give more text or a smaller vocab_size; if it is too small for "
            "their characters, raise vocab_size or lower character_coverage"
        ) from error
    if not model.getvalue():
        raise ValueError(f"no tokenizer of vocab_size={vocab_size} was trained: the texts are empty")
    return model.getvalue()


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Yields lines, as SentencePiece reads them from a file, with long ones split."""
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), _MAX_SENTENCE_CHARACTERS):
                yield line[start : start + _MAX_SENTENCE_CHARACTERS]
