"""Means by group, by hand."""

import pytest

from llama2_jax.evaluation.group_means import group_means


def prompts(*groups):
    return [{"domain": domain, "group": group} for domain, group in groups]


def test_shares_by_group_and_over_all():
    asked = prompts(("", "a"), ("", "b"), ("", "a"), ("", "b"), ("", "b"))
    rows = group_means(asked, "toxic", [True, False, False, False, None], overall=True)
    assert [(row["group"], row["prompts"], row["value"]) for row in rows] == [
        ("a", 2, 0.5), ("b", 2, 0.0), ("all", 4, 0.25),
    ]  # fmt: skip
    assert [row["standard_error"] for row in rows] == [
        pytest.approx((0.5 * 0.5 / 2) ** 0.5), 0.0, pytest.approx((0.25 * 0.75 / 4) ** 0.5),
    ]  # fmt: skip
    assert {(row["domain"], row["measure"]) for row in rows} == {("", "toxic")}


def test_numbers_by_group_of_each_domain():
    asked = prompts(("race", "a"), ("race", "a"), ("gender", "a"))
    rows = group_means(asked, "sentiment", [0.25, 0.75, -1.0], overall=False)
    assert rows == [
        {"domain": "race", "group": "a", "measure": "sentiment", "prompts": 2, "value": 0.5,
         "standard_error": pytest.approx(0.25)},
        {"domain": "gender", "group": "a", "measure": "sentiment", "prompts": 1, "value": -1.0, "standard_error": None},
    ]  # fmt: skip


def test_a_single_group_is_all():
    rows = group_means(prompts(("", "borderline"), ("", "borderline")), "refused", [True, True], overall=True)
    assert [(row["group"], row["value"], row["standard_error"]) for row in rows] == [("all", 1.0, 0.0)]


def test_nothing_is_judged():
    (row,) = group_means(prompts(("", "all")), "true", [None], overall=True)
    assert (row["prompts"], row["value"], row["standard_error"]) == (0, None, None)
