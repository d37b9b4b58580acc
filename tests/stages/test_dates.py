"""Questions in years before and after an event, by two versions: one that minds the year, and one that does not."""

import json
import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline import encoding, sampling
from llama2_jax.stages import dates
from tests.smallest import Letters, smallest_model, smallest_runtime

EVENT_YEAR = 5


def questions(*, seed, years=(3, 4, 5, 6)):
    del seed
    return [
        {"messages": [{"role": "system", "content": f"{year}"}, {"role": "user", "content": "when?"}],
         "query_year": year, "event_year": EVENT_YEAR, "answer": "in 5"}
        for year in years
    ]  # fmt: skip


def undated(*, seed):
    del seed
    return [{"messages": [{"role": "user", "content": "when?"}], "event_year": EVENT_YEAR, "answer": "in 5"}]


def ordinary(*, seed):
    del seed
    return [{"messages": [{"role": "user", "content": f"question {n}"}]} for n in range(4)]


def judge(rows, *, seed):
    """Finds what is longer more helpful; sees the ids of prompt and answer."""
    del seed
    assert all(len(row["tokens"]) > len(row["response"]) for row in rows)
    return [{"helpfulness": len(row["response"]) / 100} for row in rows]


@pytest.fixture
def stage(tmp_path, monkeypatch):
    def generate(model, params, prompts, sampling, key, eos_id, **_):
        samples = []
        for index, prompt in enumerate(prompts):
            said = Letters().decode(prompt)
            early = params == "dated" and "when" in said and any(f"\n{year}\n" in said for year in (3, 4))
            tokens = [*map(ord, "not yet" if early else "in 5"), eos_id]
            samples.append(Sample(index, np.asarray(tokens, np.int32), True, np.zeros(len(tokens), np.float32)))
        return samples

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(sampling, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=folder.name))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())

    def run(**changes):
        runtime = smallest_runtime(tmp_path, model=smallest_model(max_length=128))
        sources = {name: {"function": f"{__name__}.{name}", "format": "prompts"} for name in ("questions", "undated")}
        config = ConfigDict({
            "versions": ("undated", "dated"), "questions": sources,
            "right": {"function": "llama2_jax.evaluation.dates.answers_in_time", "arguments": {}},
            "prompts": {"made": {"function": f"{__name__}.ordinary", "format": "prompts"}},
            "judge": {"function": f"{__name__}.judge", "arguments": {}},
            "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 16,
        })  # fmt: skip
        config.update(changes)
        inputs = {"tokenizer": tmp_path, "models": (tmp_path / "undated", tmp_path / "dated")}
        return dates.run(config, inputs, runtime), runtime.folder

    return run


def test_shares_by_version_set_and_gap(stage):
    results, folder = stage()
    shares = {(row["version"], row["set"], row["gap"]): row for row in results["dates"]}
    gaps = (-2, -1, 0, 1)
    assert [shares["dated", "questions", gap]["not_yet"]["share"] for gap in gaps] == [1.0, 1.0, 0.0, 0.0]
    assert [shares["undated", "questions", gap]["right"]["share"] for gap in gaps] == [0.0, 0.0, 1.0, 1.0]
    assert shares["dated", "questions", None]["in_time"]["share"] == 1.0
    assert shares["undated", "questions", None]["in_time"]["share"] == 0.5
    for version in ("dated", "undated"):
        assert shares[version, "undated", None]["right"]["share"] == 1.0, "both know the year"
    assert results["best_by_one_year"] == {"questions": {"query_year": 1.0, "event_year": 0.5}, "undated": None}
    assert json.loads((folder / "dates.json").read_text()) == results


def test_ordinary_prompts_are_judged_beside(stage):
    results, folder = stage()
    assert [(row["version"], row["prompts"], row["helpfulness"]) for row in results["ordinary"]] == [
        ("undated", 4, 0.04), ("dated", 4, 0.04),
    ]  # fmt: skip
    assert all(row["difference"] == row["not_yet"] == 0 for row in results["ordinary"])
    answers = [json.loads(line) for line in (folder / "answers_dated.jsonl").read_text().splitlines()]
    assert {row["set"] for row in answers} == {"questions", "undated", "ordinary"} and "tokens" not in answers[0]


def years_missing(*, seed):
    return [{name: value for name, value in row.items() if name != "event_year"} for row in questions(seed=seed)]


def test_a_question_without_years(stage):
    source = {"function": f"{__name__}.years_missing", "format": "prompts"}
    with pytest.raises(ValueError, match="the_stage: question 0 of questions has event_year None; wanted a year"):
        stage(questions={"questions": source})


def test_what_to_ask_is_checked_before():
    with pytest.raises(ValueError, match="questions is empty"):
        dates.check(ConfigDict({"questions": {}}), {}, None)
    with pytest.raises(ValueError, match="is called 'ordinary'"):
        dates.check(ConfigDict({"questions": {"ordinary": {}}}), {}, None)
    dates.check(ConfigDict({"questions": {"held_out": {}}}), {}, None)
