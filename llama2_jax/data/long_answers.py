"""What becomes of answers to one prompt, to be compared with each other, that are longer than a row."""

from collections.abc import Mapping, Sequence

from llama2_jax.data.dialogues import TOO_LONG, truncate_left
from llama2_jax.text.dialogue import EncodedDialogue, encode_prompt
from llama2_jax.text.tokenizer import Tokenizer


def check_too_long(too_long: str) -> None:
    """Raises ValueError if there is no such policy."""
    if too_long not in TOO_LONG:
        raise ValueError(f"too_long={too_long!r}: choose one of {', '.join(TOO_LONG)}")


def fit_answers(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping],
    answers: Sequence[EncodedDialogue],
    *,
    length: int,
    too_long: str,
    place: str,
) -> list[EncodedDialogue]:
    """Returns answers to one prompt as they fit a row; none if they are dropped.

    Args:
      tokenizer: the tokenizer.
      messages: the prompt.
      answers: encoded with the prompt.
      length: the most tokens of prompt and answer.
      too_long: where one is longer: "raise", "drop" all, or "truncate_left": the oldest pairs are left out of all of
        them, and if that is not enough the beginning of the last one.
      place: of the record, for messages.

    Raises:
      ValueError: if an answer is too long under "raise".
    """
    longest = max(map(len, answers))
    if longest <= length:
        return list(answers)
    if too_long == "raise":
        raise ValueError(
            f"{place}: {longest} tokens do not fit the length {length}. Raise the length, or set too_long to "
            '"drop" or "truncate_left"'
        )
    if too_long == "drop":
        return []
    return _truncate_together(answers, len(encode_prompt(tokenizer, messages)), length, tokenizer.bos_id)


def _truncate_together(
    answers: Sequence[EncodedDialogue], prompt: int, length: int, bos_id: int
) -> list[EncodedDialogue]:
    """Cuts answers to one prompt by the same amount, so that they keep the same prompt, unless one alone is too long.

    Args:
      answers: encoded with their prompt, at least one of them longer than the length.
      prompt: the number of the prompt's tokens.
      length: the most tokens of prompt and answer.
      bos_id: the tokenizer's.
    """
    excess = max(map(len, answers)) - length
    sizes = [len(encoded) - excess if excess < prompt else min(len(encoded), length) for encoded in answers]
    return [truncate_left(encoded, size, bos_id) for encoded, size in zip(answers, sizes, strict=True)]
