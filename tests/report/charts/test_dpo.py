"""Charts of DPO: a colour for each training, and what was not measured has no line."""

from llama2_jax.report.charts import dpo


def test_both_answers_of_each_training_are_in_its_colour(monkeypatch):
    charts = {}
    monkeypatch.setattr(dpo, "line_chart", lambda name, series, x, y: charts.update({name: series}))
    measured = {
        "held_out_accuracy": [[10, 0.5], [20, 0.7]],
        "held_out_chosen_reward": [[10, 0.1], [20, -0.1]],
        "held_out_rejected_reward": [[10, 0.0], [20, -0.5]],
    }
    rows = [{"stage": "sft_dpo", "curves": measured}, {"stage": "other", "curves": {"accuracy": [[1, 0.5]]}}]
    dpo.dpo_charts(rows)
    (accuracy,) = charts["dpo_accuracy"]
    assert (accuracy.label, accuracy.x, accuracy.y) == ("sft dpo", [10, 20], [0.5, 0.7])
    chosen, rejected = charts["dpo_rewards"]
    assert chosen.color == rejected.color == accuracy.color and rejected.dashed and not chosen.dashed
    assert (chosen.label, chosen.y, rejected.y) == ("sft dpo, chosen", [0.1, -0.1], [0.0, -0.5])
