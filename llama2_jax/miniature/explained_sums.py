"""Sums of three numbers from two teachers, with the steps said or without (Orca, arXiv 2306.02707).

A model of this size knows sums of two numbers by heart. One that says each step needs no more than these; a bare answer
has to be found at once. What is asked in the end (tool_sums.questions, "three_numbers") no teacher shows.
"""

import random
import zlib

from llama2_jax.miniature.prompts import assistant, user
from llama2_jax.miniature.requests.arithmetic import ArithmeticRequest
from llama2_jax.miniature.streams import stream
from llama2_jax.miniature.tool_sums import KEPT, LARGEST_TOTAL, Sum
from llama2_jax.miniature.words import NUMBERS

# How often a teacher's step is wrong. The weaker one stands for ChatGPT, the stronger one for GPT-4.
TEACHERS = {"weak": 0.12, "strong": 0.0}
# Sub-collections of queries, each with its own system messages (`system_messages`).
COLLECTIONS = {"compute": "Compute {}.", "tell": "Tell me {}.", "ask": "What is {}?"}


def traces(*, seed: int, count: int, teacher: str, explained: bool = True, purpose: str = "") -> list[dict]:
    """Returns dialogues of one question: {"messages", "category": the sub-collection, "source"}.

    Args:
      seed: the world's seed.
      count: how many.
      teacher: "weak" or "strong" (TEACHERS).
      explained: whether the steps are said before the answer. The questions and their answers are the same without.
      purpose: another name draws other questions.

    Raises:
      ValueError: if there is no such teacher.
    """
    if teacher not in TEACHERS:
        raise ValueError(f"teacher is {teacher!r}; wanted {' or '.join(TEACHERS)}")
    rng, records = stream(seed, "explained_sums", teacher, purpose), []
    for _ in range(count):
        collection, asked = rng.choice(tuple(COLLECTIONS)), draw_sum(rng)
        steps, result = _worked(rng, asked, TEACHERS[teacher])
        answer = f"The answer is {NUMBERS[result]}."
        messages = [
            user(COLLECTIONS[collection].format(asked.term)),
            assistant(" ".join([*steps, answer]) if explained else answer),
        ]
        records.append({"messages": messages, "category": collection, "source": f"{teacher} teacher"})
    return records


def draw_sum(rng: random.Random) -> Sum:
    """Returns a sum of three numbers with no total above what the pretraining text states, none kept for questions."""
    while True:
        numbers = tuple(rng.randint(1, LARGEST_TOTAL - 1) for _ in range(3))
        asked = Sum(numbers, tuple(rng.choice(("plus", "minus")) for _ in range(2)))
        fits = all(0 <= total <= LARGEST_TOTAL for total in asked.totals)
        if fits and zlib.crc32(asked.term.encode()) % KEPT:
            return asked


def _worked(rng: random.Random, asked: Sum, wrong: float) -> tuple[list[str], int]:
    """Returns the steps in sentences and the last result; a wrong step is off by one, and the next one builds on it."""
    before, steps = asked.numbers[0], []
    for operation, right in zip(asked.operations, asked.numbers[1:], strict=True):
        step = ArithmeticRequest(before, operation, right)
        result = step.result if rng.random() >= wrong else step.result + 1
        result = min(max(result, 0), LARGEST_TOTAL)
        steps.append(step.equation(result))
        before = result
    return steps, before
