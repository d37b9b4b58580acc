"""Which tasks that a model wrote are of no use (Alpaca's heuristics): too short or long, or not for text alone."""

import dataclasses
import re
import string

from llama2_jax.text.task_lists import Task

# What a model of text alone cannot see, hear, draw or open.
BEYOND_TEXT = (
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot",
    "go to", "video", "audio", "music", "flowchart", "diagram",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TaskLimits:
    """What an instruction may be.

    Attributes:
      fewest_words, most_words: of the instruction.
      unwanted_words: words and phrases that it may not have, whatever their case.
      unwanted_beginnings: what it may not begin with.
    """

    fewest_words: int = 4
    most_words: int = 150
    unwanted_words: tuple[str, ...] = BEYOND_TEXT
    # Models wrote many of these, and it was unclear whether code or its output was wanted.
    unwanted_beginnings: tuple[str, ...] = ("Write a program",)

    def __post_init__(self):
        if not 0 <= self.fewest_words <= self.most_words:
            raise ValueError(
                f"fewest_words={self.fewest_words}, most_words={self.most_words}: wanted 0 or more, the first "
                "not above the second"
            )


def unfit(task: Task, limits: TaskLimits) -> str:
    """Returns why a task is of no use, in a word or two; "" if it is."""
    instruction = task.instruction
    if not limits.fewest_words <= len(instruction.split()) <= limits.most_words:
        return "length"
    if any(_has(word, instruction) for word in limits.unwanted_words):
        return "unwanted word"
    if instruction.startswith(limits.unwanted_beginnings):
        return "unwanted beginning"
    if instruction[0] in string.punctuation or not instruction[0].isascii():
        return "first character"
    if not task.output.strip():
        return "no output"
    return ""


def _has(phrase: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(phrase)}\b", text, re.IGNORECASE) is not None
