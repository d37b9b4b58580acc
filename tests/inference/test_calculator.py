"""The calculator agrees with Python's own arithmetic, and does nothing else."""

import random
import re
import time
from fractions import Fraction

import pytest

from llama2_jax.inference.calculator import MOST_CHARACTERS, calculator


def expression(draw, depth):
    """A random expression, and the same with exact numbers for Python to evaluate."""
    if depth == 0 or draw.random() < 0.2:
        number = str(draw.randint(0, 30)) if draw.random() < 0.8 else f"{draw.randint(0, 30)}.{draw.randint(0, 9)}"
        return number, f"Fraction('{number}')"
    if draw.random() < 0.15:
        inner, exact = expression(draw, depth - 1)
        return f"-({inner})", f"-({exact})"
    if draw.random() < 0.1:
        inner, exact = expression(draw, 0)
        power = draw.randint(0, 3)
        return f"({inner})**{power}", f"({exact})**{power}"
    (left, left_exact), (right, right_exact) = (expression(draw, depth - 1) for _ in range(2))
    sign = draw.choice("+-*/")
    # Without parentheses too, so that the order of operations matters.
    form = draw.choice(("{} {} {}", "({} {} {})"))
    return form.format(left, sign, right), form.format(left_exact, sign, right_exact)


def test_random_expressions():
    draw, compared = random.Random(0), 0
    for _ in range(3000):
        query, exact = expression(draw, 3)
        if len(query) > MOST_CHARACTERS:
            continue
        try:
            wanted = eval(exact, {"Fraction": Fraction})
        except ZeroDivisionError:
            with pytest.raises(ValueError, match="division by zero"):
                calculator(query)
            continue
        assert Fraction(calculator(query)) == pytest.approx(wanted, rel=1e-9), query
        compared += 1
    assert compared > 2500


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("0.1 + 0.2", "0.3"), ("76 - 25", "51"), ("1,234 * 2", "2468"), ("10 / 4 =", "2.5"), ("2 ^ 10", "1024"),
        ("3 × 4 ÷ 2 − 1", "5"), ("$3 + $4", "7"), ("-(2 + 3) * +4", "-20"), ("2 ** -2", "0.25"),
        ("1 / 3", "0.3333333333"), ("10 // 3", None), ("7 % 4", None), ("12 divided by 4", "3"), (".5 * 8", "4"),
        ("six plus seven", "thirteen"), ("Seventeen minus four", "thirteen"), ("two minus five", "minus three"),
        ("forty-eight times two", "ninety-six"), ("one hundred and five divided by five", "twenty-one"),
        ("seven divided by two", "3.5"), ("nine hundred plus one hundred", "1000"),
    ],
)  # fmt: skip
def test_values(query, value):
    if value is None:
        with pytest.raises(ValueError, match="no arithmetic expression"):
            calculator(query)
    else:
        assert calculator(query) == value


@pytest.mark.parametrize(
    "query",
    [
        "9**9**9", "9**9**9**9", "2**100000", "10**64 * 10**64", "2**0.5", "0**-1", "1/0", "1/(2-2)",
        "__import__('os')", "().__class__", "open('x')", "[1]*9", "1 if 1 else 2", "1;2", "a", "", "   ", "()", "(1",
        "1 2", "3(4)", "1e9", "0x10", "True + 1", "lambda: 1", "1j", "'a'*9", "7\n+8\nimport os", "\x00", "1" * 500,
        "(" * 90 + "1" + ")" * 90 + "!", "six of one", "٣+٤", "007", "1_000", "1,2", "--" * 99,
    ],
)  # fmt: skip
def test_hostile_queries_are_refused_at_once(query):
    start = time.perf_counter()
    with pytest.raises(ValueError):
        calculator(query)
    assert time.perf_counter() - start < 0.5


def test_deep_parentheses_are_no_problem():
    assert calculator("(" * 60 + "1" + ")" * 60) == "1"
    assert calculator("-" * 99 + "1") == "-1"


def test_what_is_wrong_is_said():
    for query, said in (("9" * 201, "longer than 200"), ("2**65", "exponent"), ("9**60 * 9**60", "too large")):
        with pytest.raises(ValueError, match=re.escape(said)):
            calculator(query)
