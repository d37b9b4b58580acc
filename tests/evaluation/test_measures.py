"""Declarations of measures: what they may say, and that evaluation.json keeps them."""

import dataclasses
import json

import pytest

from llama2_jax.evaluation.measures import MEASURES, Chart, Measure, charts_of, from_json, to_json


def test_declarations_survive_evaluation_json():
    assert from_json(json.loads(json.dumps(to_json(MEASURES)))) == MEASURES


def test_the_keys_of_report_json():
    """What readers of report.json rely on, in its order."""
    assert [key for measure in MEASURES for key in measure.keys] == [
        "helpfulness", "content", "right", "style", "safety", "violation_rate", "false_refusal_rate",
        "borderline_refusal_rate", "win_rate_vs_sft", "win_rate_standard_error", "helpfulness_win_rate_vs_sft",
        "safety_win_rate_vs_sft", "win_rate_vs_previous", "win_rate_vs_previous_standard_error",
        "reward_helpfulness", "reward_safety", "reward_general",
            "reward_general_standard_error", "answer_tokens", "seen_helpfulness",
        "seen_content", "seen_right", "seen_style", "seen_violation_rate", "seen_false_refusal_rate",
        "seen_win_rate_vs_sft",
    ]  # fmt: skip


def test_every_chart_is_drawn_once():
    charts = charts_of(MEASURES)
    assert [chart.name for chart in charts] == ["helpfulness", "parts", "harm", "win_rate", "scores"]
    # A chart stored with every measure is still one chart.
    assert charts_of(from_json(to_json(MEASURES))) == charts
    assert charts_of([Measure("a", "a"), Measure("b", "b", chart=Chart("c", "c", "c"))]) == [Chart("c", "c", "c")]


def test_a_measure_is_over_unseen_prompts_or_over_seen_ones():
    prompts = [{"safety": safety, "seen": seen} for safety in (False, True) for seen in (False, True)]
    prompts.append({"safety": False})  # nobody says that training asks it
    unseen, seen = (Measure("a", "a", prompts="harmless", seen=seen) for seen in (False, True))
    assert [unseen.is_over(prompt) for prompt in prompts] == [True, False, False, False, True]
    assert [seen.is_over(prompt) for prompt in prompts] == [False, True, False, False, False]
    assert (unseen.label, seen.label) == ("a", "a, seen")


@pytest.mark.parametrize(("field", "value"), [("better", "more"), ("prompts", "harmful"), ("color", "red")])
def test_an_unknown_value_names_what_is_expected(field, value):
    with pytest.raises(ValueError, match=f"measure 'helpfulness': {field} is '{value}'; expected one of"):
        dataclasses.replace(MEASURES[0], **{field: value})
