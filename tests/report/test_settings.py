"""The settings in which the rounds differ."""

from llama2_jax.report.settings import differing_settings


def test_settings_that_differ_between_rounds():
    def record(name, **settings):
        return {"config": {name: {"run": "module", **settings}}}

    records = {
        "a": record("a", round=1, temperatures=[0.7, 1.0], source={"limit": 5}),
        "b": record("b", round=2, temperatures=[0.7, 1.0], source={"limit": 6, "weight": 2}),
    }
    rows = [{"stage": "a", "round": 1}, {"stage": "b", "round": 2}]
    report = {"annotations": rows, "reward_models": [], "rejection_sampling": rows[:1]}
    assert differing_settings(report, records) == [
        {"title": "Annotation", "rounds": [1, 2], "rows": [("source.limit", ["5", "6"]), ("source.weight", ["", "2"])]}
    ]
