"""Tasks become rows and columns; what goes wrong with one is said in its row."""

import json

import pytest
from lm_eval.api.model import TemplateLM

from llama2_jax.evaluation.benchmark_suite import Suite, columns_of, measure


class Stub(TemplateLM):
    """Finds the choice most likely that has most letters "y"; answers every prompt with " 4"."""

    eot_token_id = prefix_token_id = 0

    def tok_encode(self, string, **_):
        return list(string.encode())

    def _loglikelihood_tokens(self, requests, **_):
        return [(float(text[1].count("y")), False) for text, _, _ in requests]

    def loglikelihood_rolling(self, requests, **_):
        raise NotImplementedError

    def generate_until(self, requests, **_):
        return [" 4"] * len(requests)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "piqa").mkdir()
    rows = [{"goal": "g", "sol1": "y", "sol2": "n"}] * 3 + [{"goal": "h", "sol1": "n", "sol2": "yyy"}]
    (tmp_path / "piqa/valid.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "piqa/valid-labels.lst").write_text("0 0 1 1")
    (tmp_path / "mmlu/test").mkdir(parents=True)
    (tmp_path / "mmlu/dev").mkdir()
    for subject, letters in (("art", "A"), ("law", "ABAB")):
        for split in ("dev", "test"):
            (tmp_path / f"mmlu/{split}/{subject}_{split}.csv").write_text(
                "".join(f"Q{number},a,b,c,d,{letter}\n" for number, letter in enumerate(letters))
            )
    return str(tmp_path)


def test_a_task_s_value_is_the_mean_over_its_documents(root):
    row = measure(Stub(), "piqa", {"shots": 0, "metric": "acc"}, Suite(root, 0, 8))
    assert (row["value"], row["documents"], row["shots"], row["metric"]) == (0.75, 4, 0, "acc")
    # The sample's standard deviation over the root of 4.
    assert row["standard_error"] == pytest.approx((0.1875 * 4 / 3) ** 0.5 / 2)
    assert measure(Stub(), "piqa", {"shots": 0, "metric": "acc"}, Suite(root, 2, 8))["value"] == 1.0
    # The longest choice is the likeliest by all its letters, not by the mean of them.
    assert measure(Stub(), "piqa", {"shots": 1, "metric": "acc_norm"}, Suite(root, 0, 8))["documents"] == 4


def test_a_group_counts_its_tasks_by_their_documents(root):
    """No choice is likelier than another: the first is taken."""
    row = measure(Stub(), "mmlu", {"shots": 1, "metric": "acc"}, Suite(root, 0, 8))
    assert (row["value"], row["documents"]) == (3 / 5, 5)


def test_likelihoods_against_those_without_a_context(root):
    row = measure(Stub(), "piqa", {"shots": 0, "metric": "acc_mutual_info"}, Suite(root, 0, 8))
    # The stub does not read the context: all differences are 0, and the first choice is taken.
    assert row["value"] == 0.5


@pytest.mark.parametrize(
    ("task", "metric", "message"),
    [
        ("piqa", "f1", "ValueError: task piqa_local has no metric 'f1'; it has acc,none, acc_norm,none"),
        ("boolq", "acc", "no such file; wanted the benchmark's documents there"),
        ("bolq", "acc", "ValueError: no task 'bolq' on local files"),
    ],
)
def test_what_cannot_be_measured_is_a_row_with_an_error(root, task, metric, message):
    row = measure(Stub(), task, {"shots": 0, "metric": metric}, Suite(root, 0, 8))
    assert row["value"] is None and row["documents"] == 0 and message in row["error"]


def test_a_column_is_the_mean_of_the_tasks_that_could_be_measured():
    """Commonsense of Llama 2 70B, tables 3 and 20: the plain mean of its tasks."""
    tasks = {"piqa": 82.8, "siqa": 50.7, "hellaswag": 85.3, "winogrande": 80.2, "arc_e": 80.2, "arc_c": 57.4,
             "obqa": 60.2, "csqa": 78.5}  # fmt: skip
    rows = [{"version": "70b", "column": "commonsense", "value": value} for value in tasks.values()]
    rows += [{"version": "70b", "column": "math", "value": value} for value in (56.8, None)]
    commonsense, math = columns_of(rows, ["commonsense", "math"])
    assert commonsense["value"] == pytest.approx(71.9, abs=0.05) and commonsense["measured"] == 8
    assert (math["value"], math["measured"], math["tasks"]) == (56.8, 1, 2)
    assert columns_of(rows[-1:], ["math"])[0]["value"] is None
