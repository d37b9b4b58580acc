"""Losses of training and, where they were measured, on held-out data."""

import pytest

from llama2_jax.report.charts import losses


@pytest.fixture
def drawn(monkeypatch):
    """The lines of each chart, by its name."""
    charts = {}
    monkeypatch.setattr(losses, "line_chart", lambda name, series, x, y: charts.update({name: series}))
    return charts


def row(stage, tokens_per_step=None, held_out=()):
    return {"stage": stage, "tokens_per_step": tokens_per_step, "loss": [[10, 3.0], [20, 2.0]], "held_out": [*held_out]}


def test_pretraining_is_over_tokens_with_what_was_held_out_as_it_went(drawn):
    losses.loss_charts([row("pretrain", tokens_per_step=5e5, held_out=[[10, 3.5], [20, 2.5]])])
    training, held_out = drawn["pretraining_loss"]
    assert (training.x, training.y) == ([5.0, 10.0], [3.0, 2.0])
    assert (held_out.label, held_out.x, held_out.y) == ("held out", [5.0, 10.0], [3.5, 2.5])
    assert drawn["finetuning_loss"] == []


def test_a_fine_tuning_s_held_out_loss_is_dashed_in_its_colour(drawn):
    losses.loss_charts([row("sft", held_out=[[20, 2.5]]), row("rlhf_v1_rejection_sampling")])
    sft, held_out, after = drawn["finetuning_loss"]
    assert [line.label for line in (sft, after)] == ["sft", "rlhf v1 rejection sampling"]
    assert held_out.dashed and held_out.color == sft.color != after.color
    assert (held_out.x, held_out.y) == ([20.0], [2.5]) and held_out.label.startswith("_"), "not in the legend"


def test_without_a_measure_there_is_no_line(drawn):
    losses.loss_charts([row("pretrain", tokens_per_step=5e5), row("sft")])
    assert [len(lines) for lines in drawn.values()] == [1, 1]
