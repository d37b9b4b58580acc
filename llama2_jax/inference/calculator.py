"""A calculator as a tool: arithmetic, exact, and nothing else of Python (section 5.1; table 15)."""

import ast
import operator
import re
from fractions import Fraction

from llama2_jax.inference.number_words import in_words, with_digits

MOST_CHARACTERS = 200
# Of an exponent, and of the numerator and the denominator of every result on the way.
MOST_EXPONENT, MOST_BITS = 64, 256

_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", "–": "-", "^": "**", "$": " "})
_SAID = {
    "plus": "+", "minus": "-", "times": "*", "multiplied by": "*", "divided by": "/", "over": "/",
}  # fmt: skip
_ALLOWED = re.compile(r"[0-9.+\-*/() ]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def calculator(query: str) -> str:
    """Returns the value of an arithmetic expression.

    Numbers with + - * / ** (or ^), parentheses and signs; or all in words, "forty-eight minus six", whose value is in
    words too if it is whole and below a thousand. Values are exact; one that is not whole is rounded to ten digits.

    Raises:
      ValueError: if the query is no such expression, divides by zero, or has too large numbers on the way.
    """
    if len(query) > MOST_CHARACTERS:
        raise ValueError(f"the expression is longer than {MOST_CHARACTERS} characters")
    value = _value(_parsed(query))
    if not re.search(r"\d", query) and value.denominator == 1 and abs(value) < 1000:
        return in_words(int(value))
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.10g}"


def _parsed(query: str) -> ast.expr:
    """Returns the expression, of which nothing is evaluated."""
    text = _THOUSANDS.sub("", with_digits(query).translate(_SIGNS)).lower()
    for said, sign in _SAID.items():
        text = re.sub(rf"\b{said}\b", sign, text)
    text = " ".join(text.split()).rstrip("=? ")
    if not _ALLOWED.fullmatch(text):
        raise ValueError("this is no arithmetic expression")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        raise ValueError("this is no arithmetic expression") from None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as value) if abs(value) != float("inf"):
            # A decimal as it is written, not the binary number next to it.
            found = Fraction(repr(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            found = -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            found = _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            found = _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            found = _divided(_OPERATIONS[type(op)], _value(left), _value(right))
        case _:
            raise ValueError("this is no arithmetic expression")
    if max(found.numerator.bit_length(), found.denominator.bit_length()) > MOST_BITS:
        raise ValueError("the numbers are too large")
    return found


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > MOST_EXPONENT:
        raise ValueError(f"an exponent is a whole number from -{MOST_EXPONENT} to {MOST_EXPONENT}")
    return _divided(operator.pow, base, int(exponent))


def _divided(operation, left: Fraction, right: Fraction | int) -> Fraction:
    try:
        return operation(left, right)
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
