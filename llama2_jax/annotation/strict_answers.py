"""What a language model is asked for in a form, read strictly: one JSON object, asked for again where it is none."""

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from llama2_jax.annotation.chat_client import ChatClient, Message

T = TypeVar("T")


class UnreadableAnswer(ValueError):
    """An answer that is not what was asked for."""


def ask_strictly(
    client: ChatClient, messages: Sequence[Message], read: Callable[[str], T], asked_again: int
) -> T | None:
    """Returns what `read` makes of the model's answer; None if no answer could be read.

    Args:
      client: of the model.
      messages: the question.
      read: raises UnreadableAnswer, saying what is wrong.
      asked_again: how often an answer that cannot be read, or a refusal, is asked for once more, with what is wrong.
    """
    messages = list(messages)
    for _ in range(asked_again + 1):
        answer = client.ask(messages)
        try:
            return read(answer)
        except UnreadableAnswer as error:
            again = f"That cannot be read: {error}. Answer with the JSON object alone."
            messages = [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": again}]
    return None


def read_object(answer: str) -> dict:
    """Reads one JSON object, perhaps in a code block.

    Raises:
      UnreadableAnswer: saying what is wrong.
    """
    try:
        found = json.loads(_without_fence(answer))
    except json.JSONDecodeError as error:
        raise UnreadableAnswer(f"it is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise UnreadableAnswer("it is no JSON object")
    return found


def _without_fence(answer: str) -> str:
    text = answer.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        return text[text.index("\n") : -3]
    return text
