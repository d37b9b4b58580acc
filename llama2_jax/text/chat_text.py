"""A dialogue as one text that has BOS and EOS as their pieces, as chat templates write it, and back to ids.

Where a format has another token in the place of EOS (`Tokenizer.end_id`), the text has that one's piece. Tools that
know texts alone, such as lm-evaluation-harness, hand such a text on. The pieces count only in a text that begins with
BOS's: what a user or a document says is refused if it has one of them.
"""

import re
from collections.abc import Sequence

from llama2_jax.text.dialogue import Message, SpecialTagError, pair_texts
from llama2_jax.text.tokenizer import Tokenizer


def chat_text(tokenizer: Tokenizer, messages: Sequence[Message], *, open_answer: bool = False) -> str:
    """Returns a dialogue as the tokenizer's chat template writes it (chat_formats.py).

    Args:
      tokenizer: whose pieces for BOS and EOS are used.
      messages: as in `encode_dialogue`.
      open_answer: the last message is the beginning of an answer, to be gone on with: no EOS and no space behind it.

    Raises:
      SpecialTagError: if a message has a tag of the chat format, or the piece of BOS or EOS.
      ValueError: as `encode_dialogue`; or if the answer is to be open and the last message is not the assistant's.
    """
    bos, end = _pieces(tokenizer)
    for index, message in enumerate(messages):
        if found := [piece for piece in (bos, end) if piece in str(message.get("content"))]:
            raise SpecialTagError(f"message {index} contains {', '.join(found)}: it would begin or end a turn")
    if open_answer and (not messages or messages[-1].get("role") != "assistant"):
        raise ValueError("open_answer: the last message is to be the assistant's")
    chat_format, text = tokenizer.chat_format, ""
    turn_end = end if chat_format.ends_turns else ""
    for index, (turn, answer) in enumerate(pair_texts(messages, chat_format)):
        begins = bos if index == 0 or chat_format.bos_each_turn else ""
        text += begins + turn + turn_end + ("" if answer is None else answer + end)
    return text.removesuffix(end).rstrip(" ") if open_answer else text


def is_chat_text(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text begins as `chat_text`'s do."""
    return text.startswith(_pieces(tokenizer)[0])


def encode_chat_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Returns the ids of a text of `chat_text`, perhaps with more behind it: those of `encode_dialogue`."""
    bos, end = _pieces(tokenizer)
    ids: list[int] = []
    special = {bos: tokenizer.bos_id, end: tokenizer.end_id}
    for part in re.split("|".join(f"({re.escape(piece)})" for piece in special), text):
        if part:
            ids += [special[part]] if part in special else tokenizer.encode(part)
    return ids


def _pieces(tokenizer: Tokenizer) -> tuple[str, str]:
    return tokenizer.piece(tokenizer.bos_id), tokenizer.piece(tokenizer.end_id)
