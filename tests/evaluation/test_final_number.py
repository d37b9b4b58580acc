"""The final number of answers to word problems."""

import pytest

from llama2_jax.evaluation.final_number import final_number, right_numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 13.", 13), ("So the answer is: $1,234.50, since 3 is less.", 1234.5), ("5 and then 7", 7),
        ("The answer is 3. No, the answer is 4 (not 5).", 4), ("10-3 leaves 7", 7), ("It is -3.", -3), ("7-2", 2),
        ("The Answer Is -4 dollars", -4), ("3 of them. The answer is clear.", 3), ("about .5", 0.5), ("none", None),
        ("", None), ('CALL_API_1: CALCULATOR | 6 + 7 -> "13"', 13), ("The answer is (-8)", -8),
    ],
)  # fmt: skip
def test_it_is_that_behind_the_conclusion_or_the_last(text, number):
    assert final_number(text) == number


def test_answers_are_compared_as_numbers():
    rows = [
        {"response": response, "answer": answer}
        for response, answer in (("51.0", "51"), ("51", 51.0), ("0.3333333", "0.33333333"), ("52", "51"), ("no", "0"))
    ]
    assert right_numbers(rows) == [True, True, True, False, False]
