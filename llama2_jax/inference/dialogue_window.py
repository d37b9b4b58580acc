"""Fits a growing dialogue into the context: drops its oldest turns, keeps its system message."""

from collections.abc import Sequence
from typing import NamedTuple

from llama2_jax.text.dialogue import Message, encode_prompt
from llama2_jax.text.tokenizer import Tokenizer


class Window(NamedTuple):
    """The part of a dialogue that fits: the messages kept, their ids as a prompt, the number of pairs dropped."""

    messages: list[Message]
    tokens: list[int]
    dropped: int


class PromptTooLongError(ValueError):
    """The last message does not fit into the context, even without the turns before it."""


def fit_dialogue(tokenizer: Tokenizer, messages: Sequence[Message], longest: int) -> Window:
    """Returns the system message and as many of the newest turns as fit.

    Args:
      tokenizer: the tokenizer.
      messages: an optional system message, then user and assistant in turn, the user last.
      longest: the most tokens that the prompt may have.

    Raises:
      PromptTooLongError: if the system message and the last message alone are longer.
      SpecialTagError, ValueError: as `encode_prompt`.
    """
    messages = list(messages)
    first = 1 if messages and messages[0].get("role") == "system" else 0
    dropped = 0
    while len(tokens := encode_prompt(tokenizer, messages)) > longest:
        if len(messages) == first + 1:
            raise PromptTooLongError(
                f"the message has {len(tokens)} tokens{' with the system message' * first}; there is room for {longest}"
            )
        del messages[first : first + 2]
        dropped += 1
    return Window(messages, tokens, dropped)
