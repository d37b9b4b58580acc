"""Text of tokens as they come: every piece as soon as it is certain, and no half characters."""

from collections.abc import Iterable, Iterator

from llama2_jax.text.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
# A character of UTF-8 has at most four bytes: after three that are no character yet, the next one decides.
_MOST_UNDECIDED = 3


def text_pieces(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """The text of tokens in pieces, one for each token that adds some; together they are the decoded whole.

    A character that is spelt in bytes is held back until its last byte is there. What is still held back when the
    tokens end is given then, with U+FFFD for bytes that make no character.

    Args:
      tokenizer: the tokenizer.
      tokens: the ids of one text, from its start on.
    """
    ids: list[int] = []
    given = 0
    for token in tokens:
        ids.append(int(token))
        # The whole again at each token: a piece decoded on its own would lose its leading space.
        text = tokenizer.decode(ids)
        certain = _certain(text)
        if certain > given:
            yield text[given:certain]
            given = certain
    rest = tokenizer.decode(ids)[given:] if ids else ""
    if rest:
        yield rest


def _certain(text: str) -> int:
    """How much of a text no further token can change: all but replacement characters at the end, three at most."""
    undecided = len(text) - len(text.rstrip(REPLACEMENT))
    return len(text) - min(undecided, _MOST_UNDECIDED)
