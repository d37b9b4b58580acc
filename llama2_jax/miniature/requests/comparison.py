"""Which of two or three numbers is largest or smallest."""

import dataclasses
import random
import re

from llama2_jax.miniature.requests.answer_parts import WRONG_REASON, Draft, Grade
from llama2_jax.miniature.words import enumeration
from llama2_jax.miniature.world import World

_QUESTION = re.compile(r"Which is the (largest|smallest) number, ((?:\d{1,3}, )?\d{1,3} or \d{1,3})\?")
_SENTENCE = re.compile(r"The (largest|smallest) number is (\d{1,4})")
_REASON = re.compile(r"(\d{1,4}) is (more|less) than (\d{1,4})")
_NUMBER = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True)
class ComparisonRequest:
    """The numbers, and whether the largest or the smallest is wanted."""

    which: str
    numbers: tuple[int, ...]

    @property
    def result(self) -> int:
        """The number wanted."""
        return max(self.numbers) if self.which == "largest" else min(self.numbers)


def ask(world: World, rng: random.Random, level: int, demonstrated: bool) -> str:
    """By level: one digit, two digits, two digits with equal tens, three digits, three numbers of three digits."""
    del world, demonstrated
    tens = 10 * rng.randint(1, 9)
    low, high, count = {1: (1, 9, 2), 2: (10, 99, 2), 3: (tens, tens + 9, 2), 4: (100, 999, 2), 5: (100, 999, 3)}[level]
    numbers = enumeration([str(number) for number in rng.sample(range(low, high + 1), count)], last="or")
    return f"Which is the {rng.choice(('largest', 'smallest'))} number, {numbers}?"


def understand(world: World, text: str) -> ComparisonRequest | None:
    """Parses a request; None if it is not a comparison of numbers."""
    del world
    match = _QUESTION.fullmatch(text)
    return ComparisonRequest(match.group(1), tuple(map(int, _NUMBER.findall(match.group(2))))) if match else None


def place(world: World, request: ComparisonRequest) -> int:
    """Returns the place of what is asked for, the numbers in any order and which is wanted (splits.py)."""
    del world
    return sum(request.numbers) + (request.which == "largest")


def draft(world: World, request: ComparisonRequest, rng: random.Random, right: bool, true_reason: bool) -> Draft:
    """Drafts an answer and the relation behind it; a wrong answer is another of the numbers."""
    del world
    others = [number for number in request.numbers if number != request.result]
    number = request.result if right else rng.choice(others)
    relation = ("more", "less") if (request.which == "largest") == true_reason else ("less", "more")
    return Draft(
        f"The {request.which} number is {number}.",
        f"{number}.",
        f"{request.result} is {relation[0]} than {rng.choice(others)}.",
    )


def grade(world: World, request: ComparisonRequest, sentences: list[str]) -> Grade:
    """Grades content 1 or 0; the supporting detail is a true relation between numbers of the question."""
    del world
    contents, full, reason, stray = [], 0, 0.0, 0
    for sentence in sentences:
        if match := _SENTENCE.fullmatch(sentence):
            contents.append(match.group(1) == request.which and int(match.group(2)) == request.result)
            full += 1
        elif match := _REASON.fullmatch(sentence):
            reason = max(reason, 1.0 if _holds(request, *match.groups()) else WRONG_REASON)
        elif sentence.isdecimal():
            contents.append(int(sentence) == request.result)
        else:
            stray += 1
    if not contents:
        return Grade(0.0, 0.0, reason, stray, attempted=False)
    return Grade(sum(contents) / len(contents), full / len(contents), reason, stray, attempted=True)


def _holds(request: ComparisonRequest, left: str, relation: str, right: str) -> bool:
    first, second = int(left), int(right)
    return {first, second} <= set(request.numbers) and (first > second if relation == "more" else first < second)
