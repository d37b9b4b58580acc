"""The versions' names in charts."""

from llama2_jax.report.charts.versions import version_labels


def test_versions_are_named_as_in_figure_11():
    names = ["sft", "rlhf_v1", "rlhf_v5_rejection_sampling", "rlhf_v5", "mine"]
    assert version_labels(names) == ["SFT", "V1", "V5\nno PPO", "V5\n+ PPO", "mine"]
    assert version_labels(["rlhf_v5"]) == ["V5"]
