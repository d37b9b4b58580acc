"""The accuracy of reward models over the part of the prompts that they were trained on."""

import pytest

from llama2_jax.data.records import DOMAINS, RATINGS
from llama2_jax.report.charts.reward_models import as_part, scaling_chart


@pytest.mark.parametrize(("fraction", "text"), [(0.125, "1/8"), (1 / 3, "1/3"), (1.0, "all"), (0.3, "0.3")])
def test_parts_are_named_as_one_says_them(fraction, text):
    assert as_part(fraction) == text


def row(kind, fraction, accuracy):
    values, errors = (dict.fromkeys((*RATINGS, "all"), value) for value in (accuracy, 0.1))
    tables = {"accuracy": dict.fromkeys(DOMAINS, values), "standard_error": dict.fromkeys(DOMAINS, errors)}
    return {"kind": kind, "prompt_fraction": fraction, **tables}


def test_each_model_is_at_the_place_of_its_part(monkeypatch):
    """Whatever the order of the stages, and where one kind lacks a part."""
    drawn = {}
    monkeypatch.setattr(
        "llama2_jax.report.charts.reward_models.line_chart",
        lambda name, series, x, y: drawn.update({line.label: (list(line.x), line.y) for line in series}, names=x.names),
    )
    scaling_chart([row("safety", 1.0, 0.7), row("helpfulness", 0.5, 0.8), row("safety", 0.125, 0.6)])
    assert drawn["names"] == ["1/8", "1/2", "all"]
    assert drawn["safety model"] == ([0, 2], [0.6, 0.7]) and drawn["helpfulness model"] == ([1], [0.8])


def test_without_such_models_there_is_no_chart():
    assert scaling_chart([]) is None
