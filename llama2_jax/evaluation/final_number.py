"""The number that an answer ends with, as word problems are scored (section 5.1; table 15)."""

import re
from collections.abc import Mapping, Sequence

_CONCLUSION = re.compile(r"answer is", re.IGNORECASE)
# A minus behind a digit or a letter is no sign.
_NUMBER = re.compile(r"(?:(?<![\w)])-)?\d[\d,]*(?:\.\d+)?|(?:(?<![\w)])-)?\.\d+")
# Of what is divided, results and answers are rounded.
_TOLERANCE = 1e-4


def final_number(text: str) -> float | None:
    """Returns the first number behind the last "answer is", or else the last number; None without a number."""
    *_, last = _CONCLUSION.split(text)
    if last is not text and (found := _NUMBER.search(last.replace("$", ""))):
        return _value(found.group())
    numbers = _NUMBER.findall(text.replace("$", ""))
    return _value(numbers[-1]) if numbers else None


def right_numbers(rows: Sequence[Mapping]) -> list[bool]:
    """Returns for each row whether the final number of its `response` is its `answer`."""
    return [_same(final_number(row["response"]), final_number(str(row["answer"]))) for row in rows]


def _same(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) <= _TOLERANCE * max(1.0, abs(other))


def _value(number: str) -> float:
    return float(number.replace(",", ""))
