"""What the charts of safety draw: the lines and their points."""

import pytest

from llama2_jax.report.charts import safety
from tests.report.made_up_run import preprompts, summary_of_safety


@pytest.fixture
def drawn(monkeypatch):
    """The series of each chart by its name, instead of an SVG."""
    charts = {}

    def draw(name, series, x, y, size=None):
        charts[name] = ({line.label: line for line in series}, x)
        return "<svg></svg>" if any(line.known for line in series) else None

    monkeypatch.setattr(safety, "line_chart", draw)
    return charts


def test_parts_are_drawn_in_their_order_and_those_not_evaluated_are_left_out(drawn):
    rows = [
        {"safety_fraction": 1.0, "summary": summary_of_safety(1)},
        {"safety_fraction": 0.0, "summary": summary_of_safety(3)},
        {"safety_fraction": 0.5, "summary": {}},
    ]
    safety.safety_scaling_charts(rows)
    series, axis = drawn["safety_scaling_shares"]
    assert axis.names == ["0%", "100%"]
    assert series["violations"].y == [0.75, 0.25]
    assert series["violations"].error == pytest.approx([1.96 * (0.75 * 0.25 / 4) ** 0.5] * 2)
    assert series["borderline refusals"].y == [1.0, 1.0]
    rewards, _ = drawn["safety_scaling_rewards"]
    assert rewards["safety reward"].y[0] < rewards["safety reward"].y[1]
    assert rewards["helpfulness reward"].y[0] == rewards["helpfulness reward"].y[1]
    # Logits of -1, 0, 1 and 2 are sigmoids of 0.27, 0.5, 0.73 and 0.88.
    line = drawn["safety_scaling_scores"][0]["100%"]
    below = dict(zip(line.x, line.y, strict=True))
    assert [below[score] for score in (0.25, 0.3, 0.5, 0.55, 0.75, 1.0)] == [0, 0.25, 0.25, 0.5, 0.75, 1]


def test_preprompts_are_drawn_beside_the_answers_without_one(drawn):
    safety.preprompt_charts([{"preprompts": {}}, {"preprompts": preprompts()}])
    scores, _ = drawn["preprompt_scores"]
    assert list(scores) == ["without", "generic preprompt", "template preprompt"]
    gains, _ = drawn["preprompt_gains"]
    for line in gains.values():
        assert list(line.x) == sorted(line.x) and line.y[0] > 0 > line.y[-1]
    assert gains["template preprompt"].y[0] > gains["generic preprompt"].y[0]


def test_a_run_without_either_has_no_charts():
    charts = safety.safety_scaling_charts([]) | safety.preprompt_charts([])
    assert set(charts.values()) == {None}
    assert safety.preprompt_charts([{"preprompts": {}}]) == {"preprompt_scores": None, "preprompt_gains": None}
