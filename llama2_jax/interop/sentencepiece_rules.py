"""What a SentencePiece model says of its rules, beyond what the sentencepiece package returns.

The model is a protocol buffer. The package brings a reader of it that only imports with recent versions of protobuf, so
the one field that is needed is found here.
"""

from collections.abc import Iterator

# The numbers of fields in sentencepiece_model.proto: ModelProto.normalizer_spec, NormalizerSpec.precompiled_charsmap.
_NORMALIZER_SPEC, _CHARSMAP = 3, 2
# The kinds of fields: a number of variable length, eight bytes, a length and so many bytes, four bytes.
_NUMBER, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


def replaces_characters(model: bytes) -> bool:
    """Whether a tokenizer normalises texts by a table of replacements, a standard one (nmt_nfkc) or its maker's.

    Args:
      model: the content of a tokenizer.model that sentencepiece loads.
    """
    return any(any(_contents(spec, _CHARSMAP)) for spec in _contents(model, _NORMALIZER_SPEC))


def _contents(message: bytes, field: int) -> Iterator[bytes]:
    """Yields what a protocol buffer has under a field of bytes, strings or messages."""
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        length, kind = 0, key & 7
        if kind in (_NUMBER, _BYTES):
            length, place = _number(message, place)
        size = {_NUMBER: 0, _EIGHT: 8, _BYTES: length, _FOUR: 4}[kind]
        if key >> 3 == field and kind == _BYTES:
            yield message[place : place + size]
        place += size


def _number(message: bytes, place: int) -> tuple[int, int]:
    """Returns a number, seven bits a byte and the lowest first, and the place behind it."""
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place
