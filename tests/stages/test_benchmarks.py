"""Every version on every task, once; the stage does without the harness only where it may."""

import json
import types

import pytest
from ml_collections import ConfigDict

from llama2_jax.pipeline import encoding, sampling
from llama2_jax.stages import benchmarks
from tests.smallest import Letters, smallest_runtime

VALUES = {("good", "piqa"): 0.8, ("good", "arc_easy"): 0.6, ("good", "mmlu"): 0.5}
ENTRY = {"shots": 0, "metric": "acc"}


def config(**changes):
    return ConfigDict({
        "versions": ("one", "two"), "files": "benchmarks", "documents_per_task": 3, "max_new_tokens": 8,
        "columns": {"mmlu": {"mmlu": ENTRY}, "commonsense": {"piqa": ENTRY, "arc_easy": ENTRY}},
        "order": ("commonsense", "mmlu"), "optional": False, "execute_code": False, "chat_versions": (),
        **changes,
    })  # fmt: skip


@pytest.fixture(autouse=True)
def harness(monkeypatch):
    monkeypatch.setattr(benchmarks, "_has_harness", lambda: True)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    asked = []

    def measure(model, task, entry, suite):
        asked.append((task, suite))
        value = VALUES.get((model._params, task))
        row = {"task": task, "shots": entry["shots"], "metric": entry["metric"], "documents": 3, "value": value}
        return row | ({"standard_error": 0.1} if value else {"standard_error": None, "error": "ValueError: no file"})

    monkeypatch.setattr(benchmarks, "measure", measure)
    monkeypatch.setattr(sampling, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=folder.name))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())

    def run(**changes):
        runtime = smallest_runtime(tmp_path)
        inputs = {"tokenizer": tmp_path, "models": (tmp_path / "good", tmp_path / "bad")}
        return benchmarks.run(config(**changes), inputs, runtime), runtime, asked

    return run


def test_versions_have_columns_and_tasks_and_what_went_wrong_is_noted(stage):
    results, runtime, _ = stage()
    assert [(row["version"], row["column"], row["value"], row["measured"]) for row in results["columns"]] == [
        ("one", "commonsense", pytest.approx(0.7), 2), ("one", "mmlu", 0.5, 1),
        ("two", "commonsense", None, 0), ("two", "mmlu", None, 0),
    ]  # fmt: skip
    assert results["notes"] == [f"{task}: ValueError: no file" for task in ("arc_easy", "mmlu", "piqa")]
    written = json.loads((runtime.folder / "benchmarks.json").read_text())
    assert written == {"columns": results["columns"], "tasks": results["tasks"]}


def test_what_was_measured_is_not_measured_again(stage):
    first, _, asked = stage()
    assert [task for task, _ in asked] == ["arc_easy", "piqa", "mmlu"] * 2
    second, _, asked = stage()
    assert len(asked) == 6 and second == first


@pytest.mark.parametrize("there", [True, False])
def test_files_are_those_under_the_data_root_or_else_the_harness_s_own(stage, tmp_path, there):
    if there:
        (tmp_path / "benchmarks").mkdir()
    *_, asked = stage()
    assert {suite.files for _, suite in asked} == {str(tmp_path / "benchmarks") if there else ""}
    assert {(suite.documents, suite.max_new_tokens) for _, suite in asked} == {(3, 8)}


def test_without_the_harness(stage, monkeypatch):
    monkeypatch.setattr(benchmarks, "_has_harness", lambda: False)
    with pytest.raises(ValueError, match=r"need the package lm-eval: pip install -e '.\[benchmarks\]'"):
        benchmarks.check(config(), {}, None)
    benchmarks.check(config(optional=True), {}, None)
    results, *_ = stage(optional=True)
    assert results["columns"] == [] and "lm-eval is not installed" in results["notes"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": ("mmlu",)}, "wanted the columns commonsense, mmlu"),
        ({"columns": {"mmlu": {}, "commonsense": {"piqa": ENTRY}}}, "columns.mmlu has no task"),
    ],
)
def test_columns_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        benchmarks.check(config(**changes), {}, None)


@pytest.mark.parametrize("asked", [True, False])
def test_code_is_executed_only_if_that_is_asked_for(stage, monkeypatch, asked):
    monkeypatch.setattr(benchmarks, "kernel_layers", lambda: ("network", "calls"))
    columns = {"code": {"mbpp": ENTRY}, "mmlu": {"mmlu": ENTRY}}
    results, _, calls = stage(columns=columns, order=("code", "mmlu"), execute_code=asked)
    assert {task for task, _ in calls} == ({"mbpp", "mmlu"} if asked else {"mmlu"})
    assert all(suite.execute_code == asked for _, suite in calls)
    assert {row["column"] for row in results["columns"]} == ({"code", "mmlu"} if asked else {"mmlu"})
    assert ("without the kernel's layers: {'files'}" if asked else "mbpp: not measured") in results["notes"][-1]


def test_chat_models_are_asked_in_their_format_and_the_report_says_so(stage):
    results, _, asked = stage(chat_versions=("two",))
    assert [suite.chat for _, suite in asked] == [False] * 3 + [True] * 3
    assert "asked in the chat format, each example a turn with its answer: two" in results["notes"]
    with pytest.raises(ValueError, match=r"chat_versions=\['three'\]: choose among the versions, one, two"):
        benchmarks.check(config(chat_versions=("two", "three")), {}, None)
