"""Figures 7 and 8 of a round: which curves they show, of which prompts, and with which intervals."""

import pytest

from llama2_jax.report.charts import rounds


def curves(n, level=0.5):
    best = {"max": [level + 0.01 * i for i in range(n)], "max_standard_error": [0.1] * n}
    return best | {"median": [level] * n, "median_standard_error": [0.2] * n}


def row(number, sweep=4, answers=4):
    return {
        "round": number,
        "temperature": 0.8,
        "sweep": {"0.8": curves(sweep, 0.3), "0.4": curves(sweep, 0.2)},
        "sweep_prompts": 48,
        "best_of": curves(answers),
        "prompts": 700,
        "bag": 700,
        "bag_by_round": {str(number): 700},
    }


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: of each chart its lines by label, and its x axis."""
    charts = {}

    def draw(name, series, x, y):
        charts[name] = ({line.label: line for line in series}, x.label)
        return "<svg/>"

    monkeypatch.setattr(rounds, "line_chart", draw)
    return charts


def test_the_newest_round_is_drawn_with_its_intervals(drawn):
    rounds.rejection_sampling_charts([row(1), row(2)])
    lines, axis = drawn["best_of"]
    assert axis == "answers sampled, N (700 prompts, round 2)"
    assert list(lines["best"].x) == [1, 2, 3, 4] and lines["best"].y == curves(4)["max"]
    assert lines["best"].error == pytest.approx([0.196] * 4) and lines["median"].error == pytest.approx([0.392] * 4)
    lines, axis = drawn["temperature"]
    assert axis == "answers sampled, N (48 prompts, round 2)"
    assert list(lines) == ["T = 0.4", "T = 0.8 (chosen)"] and lines["T = 0.4"].y == curves(4, 0.2)["max"]


def test_a_sweep_with_more_answers_is_figure_7(drawn):
    """At the round's temperature; few intervals, so that the lines stay visible."""
    rounds.rejection_sampling_charts([row(5, sweep=32)])
    lines, axis = drawn["best_of"]
    assert axis == "answers sampled, N (48 prompts, round 5)"
    assert lines["best"].y == curves(32, 0.3)["max"] and lines["best"].marker is None
    assert [n for n, error in enumerate(lines["best"].error, 1) if error] == [1, 8, 16, 24, 32]


def test_a_run_of_earlier_code_has_curves_without_intervals():
    bare = {"max": [0.1, 0.2], "median": [0.1, 0.1]}
    charts = rounds.rejection_sampling_charts([row(1) | {"best_of": bare, "sweep": {"0.8": bare}}])
    assert charts["best_of"].startswith("<svg") and charts["temperature"].startswith("<svg")


def test_without_rounds_there_are_no_charts():
    assert not any(rounds.rejection_sampling_charts([]).values())
