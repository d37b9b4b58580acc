"""Whole numbers in English words: "forty-eight" is 48, and 48 is "forty-eight"."""

import re

_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * tens for tens, word in enumerate(_TENS, 2)
}  # fmt: skip
_WORD = "|".join(sorted(_VALUES, key=len, reverse=True))
# "and" only behind a hundred, where it is no sum.
_NUMBER = re.compile(
    rf"\b(?:(?P<hundreds>{_WORD})\s+hundred(?:\s+(?:and\s+)?(?P<rest>(?:{_WORD})(?:[-\s](?:{_WORD}))?))?"
    rf"|(?P<small>(?:{_WORD})(?:-(?:{_WORD}))?))\b",
    re.IGNORECASE,
)


def with_digits(text: str) -> str:
    """Returns a text with every number in words, up to 1999, in digits."""
    return _NUMBER.sub(lambda found: str(_value(found)), text)


def in_words(number: int) -> str:
    """Returns a number in words.

    Raises:
      ValueError: if it is not between -999 and 999.
    """
    if abs(number) > 999:
        raise ValueError(f"{number} is not between -999 and 999")
    if number < 0:
        return f"minus {in_words(-number)}"
    if number >= 100:
        rest = number % 100
        return f"{_UNITS[number // 100]} hundred" + (f" and {in_words(rest)}" if rest else "")
    if number >= 20:
        return _TENS[number // 10 - 2] + (f"-{_UNITS[number % 10]}" if number % 10 else "")
    return _UNITS[number]


def _value(found: re.Match) -> int:
    if found["small"]:
        return _sum(found["small"])
    return 100 * _VALUES[found["hundreds"].lower()] + (_sum(found["rest"]) if found["rest"] else 0)


def _sum(words: str) -> int:
    return sum(_VALUES[word] for word in re.split(r"[-\s]", words.lower()))
