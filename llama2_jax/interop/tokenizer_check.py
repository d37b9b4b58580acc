"""Whether a tokenizer.json gives the ids of the tokenizer.model it was made from.

Hugging Face's library for it need not be installed, so its algorithm is repeated here, for the kind of tokenizer.json
that tokenizer_json.py writes.
"""

import itertools
import json
import pathlib

import sentencepiece

from llama2_jax.interop.sentencepiece_rules import replaces_characters
from llama2_jax.interop.tokenizer_json import SPACE

# Where tokenizers with other rules than Llama's differ: normalisation, spaces, case, scripts, digits, code, dialogues.
SAMPLES = (
    "the river and the garden",
    "CAPITALS, Straße, İstanbul",
    "ﬁne ﬂow ½ ² ª Å K ① Ｆｕｌｌ ｶﾞ é and e\u0301",
    "two  spaces,   three\tand a tab\n\nand lines\r\n",
    "\u00a0no break\u2003wide\u200bnone\ufeffmark\u3000",
    "A space after ",
    " a space before",
    " ",
    "",
    "Привет мир 你好世界 こんにちは 안녕하세요 مرحبا שלום नमस्ते",
    "😀 👩\u200d👩\u200d👧 🏳️\u200d🌈",
    "1234567890 3.14159 -1e-5 ٣٤٥",
    "def f(x):\n    return x**2  # a != b && c",
    "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhy? [/INST] Because.",
    "aaaaaaaaaaaaaaaaaaaaaaaa --------",
    "\x00\x01\x1b\x7f\x85",
    f"the{SPACE}river",
)
# Pieces of the vocabulary that are encoded as texts, evenly chosen.
_PIECES = 512


def first_difference(tokenizer_model: pathlib.Path, tokenizer_json: str) -> str:
    """Returns a text to which the two give different ids, with these, as a message; empty if there is none.

    Compared are SAMPLES, the symbols that the tokenizer's maker defined, and some hundred pieces of its vocabulary. A
    table of replacements may concern any other character: where the samples have none of its, the table is the message.

    Args:
      tokenizer_model: a SentencePiece model.
      tokenizer_json: what `tokenizer_json` made of it.
    """
    proto = tokenizer_model.read_bytes()
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    model = json.loads(tokenizer_json)["model"]
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(model["merges"])}
    for text in (*SAMPLES, *_texts_of_pieces(processor)):
        wanted, found = processor.encode(text), _encode(text, model["vocab"], ranks, processor.unk_id())
        if wanted != found:
            return f"{text!r} is {wanted[:12]} by tokenizer.model and would be {found[:12]} by tokenizer.json"
    if replaces_characters(proto):
        return "tokenizer.model replaces characters by a table of its own (normalizer_spec) before it encodes"
    return ""


def _texts_of_pieces(processor: sentencepiece.SentencePieceProcessor) -> list[str]:
    """Returns the symbols that the tokenizer's maker defined, whether texts yield them or not, and some more pieces."""
    count = processor.vocab_size()
    special = {processor.unk_id(), processor.bos_id(), processor.eos_id()}
    own = {index for index in range(count) if processor.is_control(index) or _is_defined(processor, index)}
    some = set(range(0, count, max(1, count // _PIECES)))
    spelt = [index for index in sorted(own | some) if index not in special and not processor.is_byte(index)]
    return [processor.id_to_piece(index).replace(SPACE, " ") for index in spelt]


def _is_defined(processor: sentencepiece.SentencePieceProcessor, index: int) -> bool:
    """Whether a piece is a symbol of the tokenizer's maker: SentencePiece finds these before it merges anything."""
    return processor.get_score(index) == 0.0 and len(processor.id_to_piece(index)) > 1 and not processor.is_byte(index)


def _encode(text: str, vocabulary: dict[str, int], ranks: dict[tuple[str, str], int], unknown: int) -> list[int]:
    """Returns the ids by byte pair encoding: of all neighbours that can merge those of least rank, the first ones."""
    if not text:
        return []
    pieces: list[str | None] = []
    for character in SPACE + text.replace(" ", SPACE):
        spelt = [character]
        if character not in vocabulary:
            spelt = [f"<0x{byte:02X}>" for byte in character.encode()]
            if not all(byte in vocabulary for byte in spelt):
                spelt = [None] * (not pieces or pieces[-1] is not None)  # a run of unknown characters is one
        pieces += spelt
    while True:
        mergeable = [(ranks[pair], place) for place, pair in enumerate(itertools.pairwise(pieces)) if pair in ranks]
        if not mergeable:
            return [unknown if piece is None else vocabulary[piece] for piece in pieces]
        _, place = min(mergeable)
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
