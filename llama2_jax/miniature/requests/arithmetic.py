"""Sums and differences of numbers in words, which are known by heart: no total is above thirteen.

A model of this size learns some 150 such facts. It finds one by saying it: an answer that repeats the sum is right more
often than the bare number.
"""

import dataclasses
import random
import re
import zlib

from llama2_jax.miniature.requests.answer_parts import WRONG_REASON, Draft, Grade
from llama2_jax.miniature.words import NUMBER_PATTERN, NUMBERS, capitalized, number_of
from llama2_jax.miniature.world import World

_TERM = rf"({NUMBER_PATTERN}) (plus|minus) ({NUMBER_PATTERN})"
_QUESTION = re.compile(rf"(?:What is|Compute|Tell me) {_TERM}[?.]")
_EQUATION = re.compile(rf"{_TERM} is ({NUMBER_PATTERN})", re.IGNORECASE)
_NUMBER = re.compile(NUMBER_PATTERN, re.IGNORECASE)

# For each level the least and the largest total: of a sum its result, of a difference what is taken from.
TOTALS = {1: (2, 5), 2: (6, 7), 3: (8, 9), 4: (10, 11), 5: (12, 13)}


@dataclasses.dataclass(frozen=True)
class ArithmeticRequest:
    """Two operands and the operation; the result is never negative."""

    left: int
    operation: str
    right: int

    @property
    def result(self) -> int:
        """The right result."""
        return self.left + self.right if self.operation == "plus" else self.left - self.right

    def equation(self, result: int) -> str:
        """Returns the sum with a result, right or wrong: "Seven plus five is twelve."."""
        left, right = NUMBERS[self.left], NUMBERS[self.right]
        return f"{capitalized(left)} {self.operation} {right} is {NUMBERS[result]}."

    @property
    def check(self) -> "ArithmeticRequest":
        """The inverse: the result, less or plus the right operand, is the left one."""
        return ArithmeticRequest(self.result, "minus" if self.operation == "plus" else "plus", self.right)


def ask(world: World, rng: random.Random, level: int, demonstrated: bool) -> str:
    """Asks for a sum or a difference; the level sets the total."""
    del world, demonstrated
    total = rng.randint(*TOTALS[level])
    part = rng.randint(1, total - 1)
    left, operation, right = rng.choice(((part, "plus", total - part), (total, "minus", part)))
    form = rng.choice(("What is {} {} {}?", "Compute {} {} {}.", "Tell me {} {} {}."))
    return form.format(NUMBERS[left], operation, NUMBERS[right])


def understand(world: World, text: str) -> ArithmeticRequest | None:
    """Parses a request; None if it is not a sum or a difference."""
    del world
    match = _QUESTION.fullmatch(text)
    return _request(*match.groups()) if match else None


def place(world: World, request: ArithmeticRequest) -> int:
    """Returns the place of what is asked for, the operands and the operation (splits.py)."""
    del world
    # A hash, since in an order by the operands the results of a split would have a pattern of their own.
    return zlib.crc32(f"{request.left} {request.operation} {request.right}".encode())


def draft(world: World, request: ArithmeticRequest, rng: random.Random, right: bool, true_reason: bool) -> Draft:
    """Drafts an answer and its check; a wrong answer is off by one or two."""
    del world
    result = request.result if right else _off(rng, request.result)
    left = request.left if true_reason else _off(rng, request.left)
    return Draft(request.equation(result), f"{capitalized(NUMBERS[result])}.", request.check.equation(left))


def grade(world: World, request: ArithmeticRequest, sentences: list[str]) -> Grade:
    """Grades content 1 for the right number and 0 for another; the supporting detail is the check."""
    del world
    contents, full, reason, stray = [], 0, 0.0, 0
    for sentence in sentences:
        if match := _EQUATION.fullmatch(sentence):
            *asked, result = match.groups()
            stated, result = _request(*asked), number_of(result)
            if stated == request:
                contents.append(result == request.result)
                full += 1
            elif stated.operation == request.check.operation:
                true = stated == request.check and result == request.left
                reason = max(reason, 1.0 if true else WRONG_REASON)
            else:
                stray += 1
        elif _NUMBER.fullmatch(sentence):
            contents.append(number_of(sentence) == request.result)
        else:
            stray += 1
    if not contents:
        return Grade(0.0, 0.0, reason, stray, attempted=False)
    return Grade(sum(contents) / len(contents), full / len(contents), reason, stray, attempted=True)


def _request(left: str, operation: str, right: str) -> ArithmeticRequest:
    return ArithmeticRequest(number_of(left), operation.lower(), number_of(right))


def _off(rng: random.Random, result: int) -> int:
    return rng.choice([number for number in range(result - 2, result + 3) if number != result and number >= 0])
