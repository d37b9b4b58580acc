"""Verdicts summed up by hand: who counts for which rate, and that the unknown stays unknown."""

import pytest

from llama2_jax.evaluation.measures import MEASURES, Measure
from llama2_jax.evaluation.verdicts import (
    by_category,
    check_verdicts,
    count_judged,
    mean_known,
    not_judged,
    summarise,
    utilities,
)

FIELDS = ("helpfulness", "safety", "violation", "refusal", "instruction_kept")


def prompt(safety=False, category=""):
    return {"messages": [], "safety": safety, "category": category}


def verdict(**known):
    return {**dict.fromkeys(FIELDS), **known}


PROMPTS = [prompt(), prompt(), prompt(category="borderline"), prompt(safety=True), prompt(safety=True, category="harm")]
VERDICTS = [
    verdict(helpfulness=1.0, safety=0.9, violation=True, refusal=False),
    verdict(helpfulness=0.5, safety=0.8, violation=False, refusal=False),
    verdict(helpfulness=0.0, safety=0.7, violation=False, refusal=True),
    verdict(helpfulness=0.3, safety=0.25, violation=True, refusal=False),
    verdict(helpfulness=0.2, safety=0.75, violation=False, refusal=True),
]


def test_each_rate_is_over_its_own_prompts():
    found = summarise(PROMPTS, VERDICTS, MEASURES)
    assert {name: value for name, value in found.items() if value is not None} == {
        "helpfulness": pytest.approx((1.0 + 0.5 + 0.0) / 3),
        "safety": pytest.approx((0.25 + 0.75) / 2),
        "violation_rate": pytest.approx(1 / 2),
        "false_refusal_rate": pytest.approx(1 / 3),
        "borderline_refusal_rate": 1.0,
    }
    assert {name for name, value in found.items() if value is None} == {
        "content", "right", "style",  # this judge does not tell them apart
        "seen_helpfulness", "seen_content", "seen_right", "seen_style", "seen_violation_rate",
        "seen_false_refusal_rate",
    }  # fmt: skip


def test_what_training_asks_too_counts_apart():
    prompts = [{**one, "seen": index in (0, 3)} for index, one in enumerate(PROMPTS)]
    verdicts = [{**one, "content": index / 10, "style": index / 5} for index, one in enumerate(VERDICTS)]
    found = summarise(prompts, verdicts, MEASURES)
    assert (found["helpfulness"], found["seen_helpfulness"]) == pytest.approx(((0.5 + 0.0) / 2, 1.0))
    assert (found["content"], found["seen_content"]) == pytest.approx(((0.1 + 0.2) / 2, 0.0))
    assert (found["style"], found["seen_style"]) == pytest.approx(((0.2 + 0.4) / 2, 0.0))
    assert (found["violation_rate"], found["seen_violation_rate"]) == (0.0, 1.0)
    assert (found["false_refusal_rate"], found["seen_false_refusal_rate"]) == (0.5, 0.0)


def test_a_category_has_its_own_means_over_unseen_prompts():
    prompts = [
        prompt(category="fact"), {**prompt(category="list"), "seen": True}, prompt(category="list"), prompt(),
        prompt(category="list"), prompt(safety=True, category="harm"), {**prompt(category="story"), "seen": True},
    ]  # fmt: skip
    verdicts = [
        verdict(helpfulness=index / 10, content=index / 5, right=index > 3, violation=index == 5, refusal=index == 2)
        for index in range(7)
    ]
    measured = {
        "helpfulness": 0.0, "content": 0.0, "right": 0.0, "style": None, "violation_rate": None,
        "false_refusal_rate": 0.0,
    }  # fmt: skip
    found = by_category(prompts, verdicts, MEASURES)
    assert found == {
        "fact": {"prompts": 1, **measured},
        "list": {
            **measured, "prompts": 2, "helpfulness": pytest.approx(0.3), "content": pytest.approx(0.6), "right": 0.5,
            "false_refusal_rate": 0.5,
        },
        # A measure is over its own prompts.
        "harm": {"prompts": 1, **dict.fromkeys(measured), "violation_rate": 1.0},
    }  # fmt: skip
    assert list(found) == ["fact", "list", "harm"]
    assert by_category([], [], MEASURES) == {}


def test_order_does_not_matter():
    assert summarise(PROMPTS[::-1], VERDICTS[::-1], MEASURES) == pytest.approx(summarise(PROMPTS, VERDICTS, MEASURES))


def test_what_no_verdict_tells_is_none():
    assert set(summarise(PROMPTS, [verdict()] * 5, MEASURES).values()) == {None}
    assert summarise([], [], MEASURES)["helpfulness"] is None
    only_harmless = summarise(PROMPTS[:2], VERDICTS[:2], MEASURES)
    assert only_harmless["violation_rate"] is None and only_harmless["borderline_refusal_rate"] is None
    assert only_harmless["helpfulness"] == 0.75


def test_unknown_verdicts_are_left_out_of_the_mean():
    assert mean_known([verdict(helpfulness=1.0), verdict(), {}], "helpfulness") == 1.0
    assert mean_known([verdict(refusal=True), verdict(refusal=False)], "refusal") == 0.5
    assert mean_known([{"helpfulness": 0.0}], "helpfulness") == 0.0, "zero is known"
    assert mean_known([], "helpfulness") is None


def test_a_prompt_without_a_category_is_not_borderline():
    assert summarise([{"safety": False}], [verdict(refusal=True)], MEASURES)["borderline_refusal_rate"] is None


def test_utility_is_safety_where_safety_matters():
    assert utilities(PROMPTS, VERDICTS) == [1.0, 0.5, 0.0, 0.25, 0.75]


# Those that VERDICTS are about.
OWN = tuple(
    measure for measure in MEASURES if not measure.seen and measure.verdict not in ("content", "right", "style")
)
UNDECIDED = [None, VERDICTS[1], verdict(helpfulness=0.0, refusal=None), None, verdict(safety=0.75)]


def test_what_the_judge_cannot_decide_is_left_out_and_the_rest_counted():
    assert summarise(PROMPTS, UNDECIDED, OWN) == {
        "helpfulness": 0.25, "safety": 0.75, "violation_rate": None, "false_refusal_rate": 0.0,
        "borderline_refusal_rate": None,
    }  # fmt: skip
    assert count_judged(PROMPTS, UNDECIDED, OWN) == {
        "helpfulness": 2, "safety": 1, "violation_rate": 0, "false_refusal_rate": 1, "borderline_refusal_rate": 0,
    }  # fmt: skip
    assert utilities(PROMPTS, UNDECIDED) == [None, 0.5, 0.0, None, 0.75]
    assert mean_known(UNDECIDED, "helpfulness") == 0.25


def test_a_measure_that_nothing_decides_has_a_note():
    assert not_judged(PROMPTS, UNDECIDED, OWN) == [
        "violation_rate: none of 2 verdicts has a value of violation",
        "borderline_refusal_rate: none of 1 verdicts has a value of refusal",
    ]
    assert not_judged(PROMPTS, VERDICTS, MEASURES) == []
    assert not_judged(PROMPTS[:2], VERDICTS[:2], MEASURES) == [], "where there are no prompts nothing is missing"


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [
        ([verdict()], "the judge returned 1 verdicts on 2 answers"),
        ([None, "good"], "the judge: verdict 1 is 'good'; wanted fields with their values, or None"),
        ([verdict(safety="high"), None], "the judge: verdict 0 has safety 'high'; wanted a finite number"),
        ([None, verdict(helpfulness=float("nan"))], "the judge: verdict 1 has helpfulness nan; wanted a finite number"),
    ],
)
def test_verdicts_that_are_none_are_refused(verdicts, message):
    with pytest.raises(ValueError, match=message):
        check_verdicts(verdicts, 2, FIELDS, "the judge")


def test_verdicts_may_say_more_than_is_read():
    check_verdicts([verdict(helpfulness=1, reason="polite"), {"refusal": True}, None], 3, FIELDS, "the judge")


def test_as_many_verdicts_as_prompts():
    for function, more in ((summarise, (MEASURES,)), (count_judged, (MEASURES,)), (utilities, ())):
        with pytest.raises(ValueError, match="zip"):
            function(PROMPTS, VERDICTS[:-1], *more)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [("all", 2.75 / 5), ("harmless", 1.5 / 3), ("adversarial", 1.25 / 2), ("borderline", 0.25)],
)
def test_a_declared_measure_averages_its_field_over_its_prompts(prompts, expected):
    verdicts = [{"politeness": value} for value in (0.25, 1.0, 0.25, 0.5, 0.75)]
    measures = (Measure("polite", "polite", verdict="politeness", prompts=prompts), Measure("elsewhere", "elsewhere"))
    assert summarise(PROMPTS, verdicts, measures) == {"polite": pytest.approx(expected)}
