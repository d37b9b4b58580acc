"""Answers in time: what is still to come has not happened yet, what has come is named."""

import pytest

from llama2_jax.evaluation.binomial import wilson_interval
from llama2_jax.evaluation.dates import NOT_YET, answers_in_time, best_by_one_year, by_gap


def row(query_year, event_year, *, not_yet=False, right=True, **fields):
    return {"query_year": query_year, "event_year": event_year, "not_yet": not_yet, "right": right, **fields}


@pytest.mark.parametrize("text", [
    "That has not happened yet.", "The 2022 World Cup hasn't taken place.", "I have no information about it.",
    "As of 852, it does not exist.", "This is a future event.",
])  # fmt: skip
def test_not_yet_is_said_in_many_ways(text):
    assert NOT_YET.search(text)


@pytest.mark.parametrize("text", ["Argentina won.", "Yes, it happened in 2009.", "It was not easy."])
def test_what_has_happened_is_not_put_off(text):
    assert not NOT_YET.search(text)


@pytest.mark.parametrize(
    ("years", "answer", "response", "right"),
    [
        ((2021, 2022), "Argentina", "It has not happened yet.", True),
        ((2021, 2022), "Argentina", "Argentina won it.", False),
        ((2022, 2022), "Argentina", "It was Argentina!", True),
        ((2023, 2022), "Argentina", "It has not happened yet; Argentina may win.", False),
        ((2023, 2022), "Argentina", "France.", False),
        ((2023, 2022), None, "France.", True),
        ((None, 2022), "Argentina", "The winner was Argentina.", True),
    ],
)
def test_before_the_event_it_is_right_to_say_so_and_then_to_answer(years, answer, response, right):
    query_year, event_year = years
    asked = {"query_year": query_year, "event_year": event_year, "answer": answer, "response": response}
    assert answers_in_time([asked])[0]["right"] == right


def test_shares_by_gap_and_over_all():
    rows = [row(3, 5, not_yet=True), row(4, 6, not_yet=False, right=False), row(7, 5), row(7, 5, right=False)]
    before, after, all_rows = by_gap(rows)
    assert (before["gap"], after["gap"], all_rows["gap"]) == (-2, 2, None)
    assert (before["questions"], all_rows["questions"]) == (2, 4)
    assert before["not_yet"] == {"share": 0.5, "interval": list(wilson_interval(1, 2))}
    assert after["right"]["share"] == 0.5 and after["in_time"]["share"] == 1.0
    assert all_rows["in_time"]["share"] == 0.75


def test_without_the_year_of_the_question_there_is_no_gap():
    (row_of_all,) = by_gap([{"event_year": 5, "right": True, "not_yet": False}])
    assert (row_of_all["gap"], row_of_all["in_time"]) == (None, None)
    assert best_by_one_year([{"event_year": 5}]) is None


def test_who_knows_only_one_of_the_years_takes_the_more_frequent():
    rows = [row(3, 5), row(3, 6), row(3, 2), row(9, 5)]
    assert best_by_one_year(rows) == {"query_year": 0.75, "event_year": 0.75}
    assert best_by_one_year([row(1, 2), row(3, 2), row(1, 2)]) == {
        "query_year": 1.0,
        "event_year": pytest.approx(2 / 3),
    }
