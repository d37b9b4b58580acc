"""A dialogue as one text that has BOS and EOS as their pieces, as chat templates write it, and back to ids.

Tools that know texts alone, such as lm-evaluation-harness, hand such a text on. The pieces count only in a text that
begins with BOS's: what a user or a document says is refused if it has one of them.
"""

from collections.abc import Sequence

from llama2_jax.text.dialogue import Message, SpecialTagError, dialogue_text
from llama2_jax.text.tokenizer import Tokenizer


def chat_text(tokenizer: Tokenizer, messages: Sequence[Message], *, open_answer: bool = False) -> str:
    """Returns a dialogue as its chat template writes it (interop/huggingface_tokenizer.py).

    Args:
      tokenizer: whose pieces for BOS and EOS are used.
      messages: as in `encode_dialogue`.
      open_answer: the last message is the beginning of an answer, to be gone on with: no EOS and no space behind it.

    Raises:
      SpecialTagError: if a message has a tag of the chat format, or the piece of BOS or EOS.
      ValueError: as `encode_dialogue`; or if the answer is to be open and the last message is not the assistant's.
    """
    bos, eos = _pieces(tokenizer)
    for index, message in enumerate(messages):
        if found := [piece for piece in (bos, eos) if piece in str(message.get("content"))]:
            raise SpecialTagError(f"message {index} contains {', '.join(found)}: it would begin or end a turn")
    if open_answer and (not messages or messages[-1].get("role") != "assistant"):
        raise ValueError("open_answer: the last message is to be the assistant's")
    system, turns = (messages[:1], messages[1:]) if messages and messages[0].get("role") == "system" else ((), messages)
    pairs = [list(turns[start : start + 2]) for start in range(0, len(turns), 2)]
    dialogue_text(messages)  # checks the order of the roles
    texts = [dialogue_text([*(system if index == 0 else ()), *pair]) for index, pair in enumerate(pairs)]
    ended = [bos + text + (eos if len(pair) == 2 else "") for text, pair in zip(texts, pairs, strict=True)]
    return "".join(ended).removesuffix(f" {eos}") if open_answer else "".join(ended)


def is_chat_text(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text begins as `chat_text`'s do."""
    return text.startswith(_pieces(tokenizer)[0])


def encode_chat_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Returns the ids of a text of `chat_text`, perhaps with more behind it: those of `encode_dialogue`."""
    bos, eos = _pieces(tokenizer)
    ids: list[int] = []
    for pair in text.split(bos)[1:]:
        said, end, _ = pair.partition(eos)
        ids += tokenizer.encode(said, bos=True, eos=bool(end))
    return ids


def _pieces(tokenizer: Tokenizer) -> tuple[str, str]:
    return tokenizer.piece(tokenizer.bos_id), tokenizer.piece(tokenizer.eos_id)
