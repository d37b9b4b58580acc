"""Incremental decoding of tokens to text: every piece as soon as it is certain, without partial characters."""

from collections.abc import Iterable, Iterator

from llama2_jax.text.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
# A UTF-8 character has at most four bytes: after three undecided ones the next byte decides.
_MAX_UNDECIDED = 3


def text_pieces(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """Yields the text of tokens in pieces, one for each token that adds some; joined, they are the decoded text.

    A character that is encoded as byte tokens is delayed until its last byte has arrived. If the tokens end before, the
    remaining bytes are yielded as U+FFFD.

    Args:
      tokenizer: the tokenizer.
      tokens: the ids of one text, from its start.
    """
    ids: list[int] = []
    yielded = 0
    for token in tokens:
        ids.append(int(token))
        # All ids are decoded at each token: a piece decoded separately would lose its leading space.
        text = tokenizer.decode(ids)
        certain = _certain_length(text)
        if certain > yielded:
            yield text[yielded:certain]
            yielded = certain
    remainder = tokenizer.decode(ids)[yielded:] if ids else ""
    if remainder:
        yield remainder


def _certain_length(text: str) -> int:
    """Returns the length that no further token can change: without up to three replacement characters at the end."""
    undecided = len(text) - len(text.rstrip(REPLACEMENT))
    return len(text) - min(undecided, _MAX_UNDECIDED)
