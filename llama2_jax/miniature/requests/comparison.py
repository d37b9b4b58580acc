"""Which of two to five numbers is largest or smallest."""

import dataclasses
import random
import re

from llama2_jax.miniature.requests.answer_parts import WRONG_REASON, Draft, Grade
from llama2_jax.miniature.words import NUMBER_PATTERN, NUMBERS, capitalized, enumeration, number_of
from llama2_jax.miniature.world import World

_QUESTION = re.compile(
    rf"Which is the (largest|smallest) number, ((?:{NUMBER_PATTERN}, )*{NUMBER_PATTERN} or {NUMBER_PATTERN})\?"
)
_SENTENCE = re.compile(rf"The (largest|smallest) number is ({NUMBER_PATTERN})")
_RELATION = re.compile(rf"({NUMBER_PATTERN}) is (more|less) than ({NUMBER_PATTERN})", re.IGNORECASE)
_NUMBER = re.compile(NUMBER_PATTERN, re.IGNORECASE)

# For each level how many numbers, and the largest that may be among them.
NUMBERS_ASKED = {1: (2, 10), 2: (2, 20), 3: (3, 20), 4: (4, 20), 5: (5, 20)}


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
    """Asks for the largest or the smallest of as many numbers as the level has."""
    del world, demonstrated
    count, largest = NUMBERS_ASKED[level]
    numbers = enumeration([NUMBERS[number] for number in rng.sample(range(1, largest + 1), count)], last="or")
    return f"Which is the {rng.choice(('largest', 'smallest'))} number, {numbers}?"


def understand(world: World, text: str) -> ComparisonRequest | None:
    """Parses a request; None if it is not a comparison of numbers."""
    del world
    match = _QUESTION.fullmatch(text)
    if not match:
        return None
    return ComparisonRequest(match.group(1), tuple(map(number_of, _NUMBER.findall(match.group(2)))))


def place(world: World, request: ComparisonRequest) -> int:
    """Returns the place of what is asked for, the numbers in any order and which is wanted (splits.py)."""
    del world
    return sum(request.numbers) + (request.which == "largest")


def draft(world: World, request: ComparisonRequest, rng: random.Random, right: bool, true_reason: bool) -> Draft:
    """Drafts an answer and the relation behind it; a wrong answer is another of the numbers."""
    del world
    others = [number for number in request.numbers if number != request.result]
    number = request.result if right else rng.choice(others)
    more = (request.which == "largest") == true_reason
    return Draft(
        f"The {request.which} number is {NUMBERS[number]}.",
        f"{capitalized(NUMBERS[number])}.",
        relation(request.result, "more" if more else "less", rng.choice(others)),
    )


def relation(left: int, more_or_less: str, right: int) -> str:
    """Returns the sentence that one number is more, or less, than another."""
    return f"{capitalized(NUMBERS[left])} is {more_or_less} than {NUMBERS[right]}."


def grade(world: World, request: ComparisonRequest, sentences: list[str]) -> Grade:
    """Grades content 1 or 0; the supporting detail is a true relation between numbers of the question."""
    del world
    contents, full, reason, stray = [], 0, 0.0, 0
    for sentence in sentences:
        if match := _SENTENCE.fullmatch(sentence):
            contents.append(match.group(1) == request.which and number_of(match.group(2)) == request.result)
            full += 1
        elif match := _RELATION.fullmatch(sentence):
            reason = max(reason, 1.0 if _holds(request, *match.groups()) else WRONG_REASON)
        elif _NUMBER.fullmatch(sentence):
            contents.append(number_of(sentence) == request.result)
        else:
            stray += 1
    if not contents:
        return Grade(0.0, 0.0, reason, stray, attempted=False)
    return Grade(sum(contents) / len(contents), full / len(contents), reason, stray, attempted=True)


def _holds(request: ComparisonRequest, left: str, more_or_less: str, right: str) -> bool:
    first, second = number_of(left), number_of(right)
    ordered = first > second if more_or_less.lower() == "more" else first < second
    return {first, second} <= set(request.numbers) and ordered
