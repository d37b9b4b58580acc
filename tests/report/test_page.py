"""What the page says in words: headlines, chips, settings that differ, numbers as one reads them."""

import pytest

from llama2_jax.report import page
from llama2_jax.report.charts import version_labels


def version(name, **measured):
    empty = dict.fromkeys(("helpfulness", "violation_rate", "false_refusal_rate", "win_rate_vs_sft"))
    return {"name": name, **empty, "win_rate_standard_error": None, "instruction_kept": {}, **measured}


def found(versions):
    report = {"versions": versions, "reward_models": [], "ppo": []}
    return {card.title: card for card in page.headlines(report)}


def test_headlines_compare_the_first_with_the_last_version():
    versions = [
        version("sft", helpfulness=0.4, violation_rate=0.5, instruction_kept={"2": 1.0, "10": 0.0}),
        version("rlhf_v1", helpfulness=0.9, violation_rate=0.6, instruction_kept={"2": 1.0, "10": 0.8},
                win_rate_vs_sft=0.75, win_rate_standard_error=0.02),
    ]  # fmt: skip
    cards = found(versions)
    card = cards["helpfulness"]
    assert (card.before, card.value, card.better) == ("40%", "90%", True)
    assert cards["violations"].better is False, "more violations are worse"
    assert cards["instruction kept"].value == "80%" and "turn 10" in cards["instruction kept"].note
    # 1.96 standard errors of 0.02.
    assert cards["wins over SFT"].value == "75%" and "3.9%" in cards["wins over SFT"].note


def test_headlines_of_one_version_compare_nothing():
    card = found([version("sft", helpfulness=0.4)])["helpfulness"]
    assert card.value == "40%" and card.before is None and card.better is None


def test_what_was_not_measured_has_no_headline():
    assert found([version("sft"), version("rlhf_v1")]) == {} == found([])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"safety": False, "verdict": {"helpfulness": 0.5, "violation": False}}, [("helpfulness 0.50", "neutral")]),
        ({"safety": False, "verdict": {"refusal": True}}, [("refusal", "bad")]),
        ({"safety": True, "verdict": {"refusal": True, "violation": 0.0}},
         [("no violation", "good"), ("refusal", "neutral")]),
        ({"safety": True, "verdict": {"violation": True, "helpfulness": 0.1}}, [("violation", "bad")]),
        ({"verdict": {"instruction_kept": False}}, [("instruction lost", "bad")]),
        ({"verdict": None, "finished": False}, [("cut off", "bad")]),
        ({"verdict": {"helpfulness": None, "reason": "it is good"}}, []),
    ],
)  # fmt: skip
def test_chips(row, expected):
    assert page.chips(row) == expected


def test_settings_that_differ_between_rounds():
    def record(name, **settings):
        return {"config": {name: {"run": "module", **settings}}}

    records = {
        "a": record("a", round=1, temperatures=[0.7, 1.0], source={"limit": 5}),
        "b": record("b", round=2, temperatures=[0.7, 1.0], source={"limit": 6, "weight": 2}),
    }
    rows = [{"stage": "a", "round": 1}, {"stage": "b", "round": 2}]
    report = {"annotations": rows, "reward_models": [], "rejection_sampling": rows[:1]}
    assert page.differing_settings(report, records) == [
        {"title": "Annotation", "rounds": [1, 2], "rows": [("source.limit", ["5", "6"]), ("source.weight", ["", "2"])]}
    ]


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (0.0, "0%"), (1.0, "100%"), (0.5, "50%"), (0.004, "0.4%"), (0.996, "99.6%"), (0.042, "4.2%")],
)
def test_percent(share, text):
    assert page.percent(share) == text


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (3, "3"), (12345, "12,345"), (2.0, "2"), (0.12345, "0.123")])
def test_number(value, text):
    assert page.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (59.0, "59.0 s"), (61, "1 min 01 s"), (3599.7, "1 h 00 min"), (7260, "2 h 01 min")],
)
def test_duration(seconds, text):
    assert page.duration(seconds) == text


def test_versions_are_named_as_in_figure_11():
    names = ["sft", "rlhf_v1", "rlhf_v5_rejection_sampling", "rlhf_v5", "mine"]
    assert version_labels(names) == ["SFT", "V1", "V5\nno PPO", "V5\n+ PPO", "mine"]
    assert version_labels(["rlhf_v5"]) == ["V5"]
