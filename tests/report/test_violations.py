"""Violations by category and attack: the sums, and what a version was not attacked with."""

from llama2_jax.evaluation.safety_summary import share
from llama2_jax.report.violations import violation_table, violations_by_version

CELLS = {
    "illicit": {"plain": share(1, 4), "role_play": share(2, 2)},
    "hateful": {"plain": share(0, 6), "metaphor": share(3, 4)},
}


def counts(row):
    return {column: (cell["count"], cell["of"]) for column, cell in row.items()}


def test_rows_and_columns_are_summed():
    table = violation_table(CELLS)
    assert table["columns"] == ["plain", "role_play", "metaphor", "all"]
    assert {name: counts(row) for name, row in table["rows"].items()} == {
        "illicit": {"plain": (1, 4), "role_play": (2, 2), "all": (3, 6)},
        "hateful": {"plain": (0, 6), "metaphor": (3, 4), "all": (3, 10)},
        "all": {"plain": (1, 10), "role_play": (2, 2), "metaphor": (3, 4), "all": (6, 16)},
    }


def test_a_single_category_needs_no_sum():
    assert list(violation_table({"adversarial": {"": share(1, 2)}})["rows"]) == ["adversarial"]


def test_versions_are_summed_over_categories_and_those_without_are_left_out():
    versions = [
        {"name": "sft", "safety_summary": {"violations_by": CELLS}},
        {"name": "old", "safety_summary": {}},
        {"name": "rlhf_v1", "safety_summary": {"violations_by": {"illicit": {"plain": share(0, 4)}}}},
    ]
    table = violations_by_version(versions)
    assert table["columns"] == ["plain", "role_play", "metaphor", "all"]
    assert {name: counts(row)["all"] for name, row in table["rows"].items()} == {"sft": (6, 16), "rlhf_v1": (0, 4)}
    assert violations_by_version([])["rows"] == {}
