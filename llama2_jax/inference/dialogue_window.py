"""A dialogue that grows beyond the context: its oldest turns go, its system message stays."""

from collections.abc import Sequence
from typing import NamedTuple

from llama2_jax.text.dialogue import Message, encode_prompt
from llama2_jax.text.tokenizer import Tokenizer


class Window(NamedTuple):
    """What of a dialogue fits: the messages kept, their ids as a prompt, and how many turns (pairs) were dropped."""

    messages: list[Message]
    tokens: list[int]
    dropped: int


class PromptTooLongError(ValueError):
    """The last message does not fit into the context, even without all that came before it."""


def fit_dialogue(tokenizer: Tokenizer, messages: Sequence[Message], longest: int) -> Window:
    """The newest turns of a dialogue, as many as fit, after its system message.

    Args:
      tokenizer: the tokenizer.
      messages: perhaps a system message, then user and assistant in turn, the user last.
      longest: the most tokens that the prompt may have.

    Raises:
      PromptTooLongError: where the system message and the last message alone are longer.
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
