"""Cleaning of conversations that people shared (Vicuna: "we convert the HTML back to markdown and filter out some
inappropriate or low-quality samples"; FastChat, data/clean_sharegpt.py), for a source's `prepare`.
"""

import re
from collections.abc import Mapping, Sequence

from llama2_jax.data.html_markdown import html_to_markdown

# What is asked of an English text, ours: FastChat asks a language detector. Letters of the Latin alphabet without
# accents, and in all but the shortest texts the words that every English sentence has some of.
LATIN_SHARE = 0.9
FUNCTION_WORDS = frozenset((
    "the", "a", "an", "is", "are", "was", "be", "been", "to", "of", "and", "in", "on", "at", "for", "with", "it",
    "this", "that", "you", "i", "we", "he", "she", "they", "what", "how", "who", "which", "can", "do", "does", "not",
    "or", "as", "if", "from", "by", "my", "your", "me", "have", "has", "will", "would", "so", "but", "there", "here",
))  # fmt: skip
FEWEST_WORDS, FUNCTION_SHARE = 10, 0.1
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+")


def cleaned(record: Mapping, *, without: Sequence[str] = (), english: bool = True) -> dict | None:
    """Returns a conversation as Markdown, from the user's first turn to the last answer.

    Args:
      record: with `messages`, of one speaker after the other.
      without: texts that no turn may have, such as the tags of the chat format that it is to be written in.
      english: whether the conversation must be in English.

    Returns:
      The record with its messages cleaned; None if no answered turn is left, if a turn is empty, or if the conversation
      is not what is wanted.
    """
    messages = [{**message, "content": html_to_markdown(message["content"]).strip()} for message in record["messages"]]
    first = 1 if messages and messages[0]["role"] == "system" else 0
    system, turns = messages[:first], messages[first:]
    while turns and turns[0]["role"] != "user":
        turns = turns[1:]
    while turns and turns[-1]["role"] != "assistant":
        turns = turns[:-1]
    texts = [message["content"] for message in (*system, *turns)]
    if not turns or not all(texts) or any(one in text for one in without for text in texts):
        return None
    if english and not is_english("\n".join(message["content"] for message in turns)):
        return None
    return {**record, "messages": [*system, *turns]}


def is_english(text: str) -> bool:
    """Whether a text reads as English, apart from its code."""
    words = _WORD.findall(_CODE.sub(" ", text).lower())
    letters = "".join(words)
    if letters and sum(letter.isascii() for letter in letters) < LATIN_SHARE * len(letters):
        return False
    return len(words) < FEWEST_WORDS or sum(word in FUNCTION_WORDS for word in words) >= FUNCTION_SHARE * len(words)
