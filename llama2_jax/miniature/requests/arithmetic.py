"""Sums and differences: of one digit, of tens, and of two digits."""

import dataclasses
import random
import re
import zlib

from llama2_jax.miniature.requests.answer_parts import WRONG_REASON, Draft, Grade
from llama2_jax.miniature.world import World

_QUESTION = re.compile(r"(?:What is|Compute|Tell me) (\d{1,3}) (plus|minus) (\d{1,3})[?.]")
_EQUATION = re.compile(r"(\d{1,4}) (plus|minus) (\d{1,4}) is (\d{1,4})")
_NEAR = 0.3  # content of a wrong number with one right digit
_FAR = 0.1  # content of any other number

# For each level the largest left and right operand, and the unit that both are multiples of.
OPERANDS = {1: (5, 5, 1), 2: (9, 9, 1), 3: (90, 90, 10), 4: (30, 9, 1), 5: (50, 50, 1)}


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


def ask(world: World, rng: random.Random, level: int, demonstrated: bool) -> str:
    """Asks for a sum or a difference; the level sets the size of the operands."""
    del world, demonstrated
    *largest, unit = OPERANDS[level]
    left, right = (unit * rng.randint(1, limit // unit) for limit in largest)
    operation = rng.choice(("plus", "minus"))
    if operation == "minus" and left < right:
        left, right = right, left
    return rng.choice(("What is {} {} {}?", "Compute {} {} {}.", "Tell me {} {} {}.")).format(left, operation, right)


def understand(world: World, text: str) -> ArithmeticRequest | None:
    """Parses a request; None if it is not a sum or a difference."""
    del world
    match = _QUESTION.fullmatch(text)
    return ArithmeticRequest(int(match.group(1)), match.group(2), int(match.group(3))) if match else None


def place(world: World, request: ArithmeticRequest) -> int:
    """Returns the place of what is asked for, the operands and the operation (splits.py)."""
    del world
    # A hash, since in an order by the operands the results of a split would have a pattern of their own.
    return zlib.crc32(f"{request.left} {request.operation} {request.right}".encode())


def draft(world: World, request: ArithmeticRequest, rng: random.Random, right: bool, true_reason: bool) -> Draft:
    """Drafts an answer and its check; a wrong answer is off by one or ten."""
    del world
    result = request.result if right else _off(rng, request.result)
    check = request.result if true_reason else _off(rng, request.result)
    inverse = "minus" if request.operation == "plus" else "plus"
    return Draft(
        f"{request.left} {request.operation} {request.right} is {result}.",
        f"{result}.",
        f"{check} {inverse} {request.right} is {request.left}.",
    )


def grade(world: World, request: ArithmeticRequest, sentences: list[str]) -> Grade:
    """Grades content 1 for the right number, less for a near one; the supporting detail is the check."""
    del world
    inverse = "minus" if request.operation == "plus" else "plus"
    contents, full, reason, stray = [], 0, 0.0, 0
    for sentence in sentences:
        if match := _EQUATION.fullmatch(sentence):
            left, operation, right, result = match.groups()
            if (int(left), operation, int(right)) == (request.left, request.operation, request.right):
                contents.append(_content(request.result, result))
                full += 1
            elif operation == inverse:
                true = (int(left), int(right), int(result)) == (request.result, request.right, request.left)
                reason = max(reason, 1.0 if true else WRONG_REASON)
            else:
                stray += 1
        elif sentence.isdecimal():
            contents.append(_content(request.result, sentence))
        else:
            stray += 1
    if not contents:
        return Grade(0.0, 0.0, reason, stray, attempted=False)
    return Grade(sum(contents) / len(contents), full / len(contents), reason, stray, attempted=True)


def _content(result: int, given: str) -> float:
    wanted = str(result)
    if given == wanted:
        return 1.0
    near = len(given) == len(wanted) and any(a == b for a, b in zip(given, wanted, strict=True))
    return _NEAR if near else _FAR


def _off(rng: random.Random, result: int) -> int:
    return rng.choice([number for number in (result - 10, result - 1, result + 1, result + 10) if number >= 0])
