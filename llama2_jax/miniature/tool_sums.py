"""Sums to use a calculator on (section 5.1; table 15): demonstrations with calls, and questions of three kinds.

A model of this size learns the calls from demonstrations; the paper's needed none. Demonstrations ask sums of the
training split (splits.py), with the calculator and without it. Questions ask

    unseen          sums of the evaluation split. The pretraining text states them, nothing asks them.
    larger          sums with totals above all that the pretraining text states.
    three_numbers   sums of three numbers, none demonstrated, which take two calls.
"""

import dataclasses
import random
import re
import zlib
from collections.abc import Callable, Mapping, Sequence

from llama2_jax.miniature.prompts import assistant, user
from llama2_jax.miniature.requests import arithmetic
from llama2_jax.miniature.splits import EVALUATION, TRAINING, ask_in
from llama2_jax.miniature.streams import stream
from llama2_jax.miniature.words import NUMBER_PATTERN, NUMBERS, number_of
from llama2_jax.miniature.world import build_world
from llama2_jax.text.tool_calls import call_text, tool_prompt

KINDS = ("unseen", "larger", "three_numbers")
CALCULATOR = "CALCULATOR"
# The largest total that the pretraining text states, and the largest that has a word.
LARGEST_TOTAL, LARGEST_NUMBER = max(most for _, most in arithmetic.TOTALS.values()), len(NUMBERS) - 1
THREE_NUMBERS = 0.4
# One in so many sums of three numbers is kept for the questions.
KEPT = 6
# Far more than it takes.
MOST_DRAWS = 20_000

_FORMS = ("What is {}?", "Compute {}.", "Tell me {}.")
_TERM = re.compile(rf"{NUMBER_PATTERN}(?: (?:plus|minus) {NUMBER_PATTERN})+")
_STATED = re.compile(rf"answer is ({NUMBER_PATTERN})\b", re.IGNORECASE)
_NUMBER = re.compile(rf"\b{NUMBER_PATTERN}\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Sum:
    """Numbers to add or to take away, from left to right: "six plus seven minus two"."""

    numbers: tuple[int, ...]
    operations: tuple[str, ...]

    @property
    def totals(self) -> list[int]:
        """The total after each number."""
        totals = [self.numbers[0]]
        for operation, number in zip(self.operations, self.numbers[1:], strict=True):
            totals.append(totals[-1] + (number if operation == "plus" else -number))
        return totals

    @property
    def term(self) -> str:
        """The sum in words."""
        steps = zip(self.operations, self.numbers[1:], strict=True)
        return " ".join([NUMBERS[self.numbers[0]], *(f"{one} {NUMBERS[number]}" for one, number in steps)])


def demonstrations(*, seed: int, count: int, tools: Mapping[str, str], with_tools: float = 0.75) -> list[dict]:
    """Returns dialogues that ask a sum: {"messages", "source"}. The calculator's results are "injected".

    Args:
      seed: the world's seed.
      count: how many.
      tools: the descriptions of the prompt's tools by name (`tool_calls.tool_prompt`), CALCULATOR among them.
      with_tools: the share with the tools in the prompt and calls in the answer. The others answer at once.
    """
    rng, records = stream(seed, "tool_sums", "demonstrations"), []
    for _ in range(count):
        question = _three_numbers(rng, kept=False) if rng.random() < THREE_NUMBERS else _of_split(seed, rng, TRAINING)
        asked = parse(question)
        if rng.random() < with_tools:
            messages = [user(tool_prompt(tools, question)), _with_calls(asked)]
        else:
            messages = [user(question), assistant(_conclusion(asked))]
        records.append({"messages": messages, "source": "tool_sums"})
    return records


def questions(*, seed: int, kind: str, count: int) -> list[dict]:
    """Returns different questions of a kind: {"messages", "answer"}; fewer if there are not so many.

    Raises:
      ValueError: if the kind is none of KINDS.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; there are sums of the kinds {', '.join(KINDS)}")
    rng = stream(seed, "tool_sums", kind)
    draws: dict[str, Callable[[], str]] = {
        "unseen": lambda: _of_split(seed, rng, EVALUATION),
        "larger": lambda: _larger(rng),
        "three_numbers": lambda: _three_numbers(rng, kept=True),
    }
    found: dict[str, None] = {}
    for _ in range(MOST_DRAWS):
        found[draws[kind]()] = None
        if len(found) == count:
            break
    return [{"messages": [user(question)], "answer": NUMBERS[parse(question).totals[-1]]} for question in found]


def parse(question: str) -> Sum:
    """Returns the sum that a question asks for.

    Raises:
      ValueError: if there is none.
    """
    found = _TERM.search(question)
    if not found:
        raise ValueError(f"no sum in {question!r}")
    first, *rest = found.group().split()
    return Sum((number_of(first), *map(number_of, rest[1::2])), tuple(rest[::2]))


def right_sums(rows: Sequence[Mapping]) -> list[bool]:
    """Returns for each row whether its `response` states its `answer`.

    What counts is the number behind the last "answer is"; in an answer without it that of the sum, "Six plus seven is
    thirteen", or else the first number.
    """
    return [_stated(row["response"], row["messages"][-1]["content"]) == row["answer"] for row in rows]


def _stated(response: str, question: str) -> str:
    equation = re.compile(rf"{parse(question).term} is ({NUMBER_PATTERN})\b", re.IGNORECASE)
    stated = _STATED.findall(response)[-1:] or equation.findall(response)[:1] or _NUMBER.findall(response)[:1]
    return stated[0].lower() if stated else ""


def _with_calls(asked: Sum) -> dict:
    """Returns an answer that calls the calculator for each operation, the earlier total in its query."""
    content, injected, totals = "", [], asked.totals
    steps = zip(totals, asked.operations, asked.numbers[1:], totals[1:], strict=False)
    for number, (before, operation, right, after) in enumerate(steps, 1):
        query = f"{NUMBERS[before]} {operation} {NUMBERS[right]}"
        content += f"{call_text(number, CALCULATOR, query)} "
        result = f'"{NUMBERS[after]}"'
        injected.append([len(content), len(content) + len(result)])
        content += f"{result} "
    return {**assistant(content + _conclusion(asked)), "injected": injected}


def _conclusion(asked: Sum) -> str:
    return f"The answer is {NUMBERS[asked.totals[-1]]}."


def _of_split(seed: int, rng: random.Random, split: str) -> str:
    world, levels = build_world(seed), tuple(arithmetic.TOTALS)
    return ask_in(split, seed, lambda: arithmetic.ask(world, rng, rng.choice(levels), False))


def _larger(rng: random.Random) -> str:
    total = rng.randint(LARGEST_TOTAL + 1, LARGEST_NUMBER)
    part = rng.randint(1, total - 1)
    asked = rng.choice((Sum((part, total - part), ("plus",)), Sum((total, part), ("minus",))))
    return rng.choice(_FORMS).format(asked.term)


def _three_numbers(rng: random.Random, *, kept: bool) -> str:
    """Asks a sum of three numbers with no total above the largest of the pretraining text."""
    while True:
        numbers = tuple(rng.randint(1, LARGEST_TOTAL - 1) for _ in range(3))
        asked = Sum(numbers, tuple(rng.choice(("plus", "minus")) for _ in range(2)))
        fits = all(0 <= total <= LARGEST_TOTAL for total in asked.totals)
        if fits and (zlib.crc32(asked.term.encode()) % KEPT == 0) == kept:
            return rng.choice(_FORMS).format(asked.term)
