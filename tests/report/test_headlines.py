"""The numbers at the top of the page."""

import pytest

from llama2_jax.evaluation.measures import MEASURES, Measure
from llama2_jax.report.headlines import headlines


def version(name, **measured):
    empty = {key: None for measure in MEASURES for key in measure.keys}
    return {"name": name, **empty, "instruction_kept": {}, **measured}


def found(versions):
    report = {"versions": versions, "reward_models": [], "ppo": []}
    return {card.title: card for card in headlines(report, MEASURES)}


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


def test_the_headline_of_kept_instructions_is_at_the_last_turn_that_a_dialogue_reaches():
    kept = {"2": 1.0, "10": 0.8, "20": None}
    cards = found([version("sft", instruction_kept=kept), version("rlhf_v1", instruction_kept=kept)])
    assert cards["instruction kept"].value == "80%" and "turn 10" in cards["instruction kept"].note


def test_headlines_of_one_version_compare_nothing():
    card = found([version("sft", helpfulness=0.4)])["helpfulness"]
    assert card.value == "40%" and card.before is None and card.better is None


def test_what_was_not_measured_has_no_headline():
    assert found([version("sft"), version("rlhf_v1")]) == {} == found([])


@pytest.mark.parametrize(("better", "expected"), [("higher", True), ("lower", False), (None, None)])
def test_the_declaration_says_which_direction_is_better(better, expected):
    measures = (Measure("tokens", "tokens", better, share=False, headline="per answer"),)
    versions = [version("sft", tokens=10.5), version("rlhf_v1", tokens=12.25)]
    (card,) = headlines({"versions": versions, "reward_models": [], "ppo": []}, measures)
    assert (card.before, card.value, card.better, card.note) == ("10.500", "12.250", expected, "per answer")
