"""Versions answer the same prompts, and a judge alone looks at the answers."""

import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.evaluation.measures import OF_A_JUDGE, to_json
from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline import encoding, judged_answers, sampling
from llama2_jax.pipeline.stage_files import read_json, read_jsonl
from llama2_jax.stages import judged_answers as stage_module
from llama2_jax.text.chat_formats import VICUNA
from tests.smallest import Letters, smallest_model, smallest_runtime

# What each version answers to everything; its length is what the judge goes by.
ANSWERS = {"first": " ab", "second": " abcd"}
JUDGED = []


class Vicunas(Letters):
    chat_format = VICUNA


def prompts(*, seed):
    del seed
    return [
        {"messages": [{"role": "user", "content": f"q{index}"}], "safety": index == 0, "category": "kind",
         "seen": index == 1}
        for index in range(6)
    ]  # fmt: skip


def judge(rows, *, seed):
    del seed
    JUDGED.extend(Letters().decode(row["tokens"]) for row in rows)
    return [
        {"helpfulness": len(row["response"]) / 10 + int(row["messages"][0]["content"][1]) / 100, "safety": 0.5}
        for row in rows
    ]


@pytest.fixture
def stage(tmp_path, monkeypatch):
    def generate(model, params, prompts, sampling, key, eos_id, **_):
        tokens = np.asarray([*map(ord, ANSWERS[params]), eos_id], np.int32)
        return [Sample(index, tokens, True, np.zeros(len(tokens))) for index in range(len(prompts))]

    def load(path):
        return Vicunas() if "own" in str(path) else Letters()

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(sampling, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=folder.name))
    for module in (encoding, judged_answers):
        monkeypatch.setattr(module.Tokenizer, "load", load)
    JUDGED.clear()

    def run(judge_tokenizer=False, **changes):
        runtime = smallest_runtime(tmp_path, model=smallest_model(max_length=256))
        config = ConfigDict({
            "versions": ("one", "two"), "baseline": "one",
            "prompts": {"made": {"function": f"{__name__}.prompts", "format": "prompts"}},
            "judge": {"function": f"{__name__}.judge", "arguments": {}},
            "measures": "llama2_jax.evaluation.measures.OF_A_JUDGE",
            "temperature": 0.6, "top_p": 0.9, "max_new_tokens": 8, **changes,
        })  # fmt: skip
        inputs = {"tokenizer": tmp_path / "own", "models": (tmp_path / "first", tmp_path / "second")}
        inputs |= {"judge_tokenizer": tmp_path / "other"} if judge_tokenizer else {}
        return stage_module.run(config, inputs, runtime)["versions"], runtime.folder

    return run


def test_versions_are_measured_by_the_judge_s_verdicts(stage):
    versions, folder = stage()
    assert [version["name"] for version in versions] == ["one", "two"]
    # Harmless and unseen are the questions 2 to 5.
    assert [version["helpfulness"] for version in versions] == pytest.approx([0.235, 0.435])
    assert [version["judged"]["helpfulness"] for version in versions] == [4, 4]
    assert [version["win_rate_vs_sft"] for version in versions] == [None, 1.0]
    assert versions[1]["difference"] == {"mean": pytest.approx(0.2), "standard_error": pytest.approx(0), "answers": 4}
    assert [version["answer_tokens"] for version in versions] == [4, 6]
    assert read_json(folder / "evaluation.json") == {
        "versions": versions, "prompts": 6, "seen_prompts": 1, "measures": to_json(OF_A_JUDGE),
    }  # fmt: skip
    rows = read_jsonl(folder / "answers_two.jsonl")
    assert {row["response"] for row in rows} == {"abcd"} and rows[0]["finished"] and "tokens" not in rows[0]
    assert rows[3]["verdict"]["helpfulness"] == pytest.approx(0.43)
    assert [row["seen"] for row in rows] == [False, True, False, False, False, False]


def test_a_judge_reads_the_policy_s_own_ids_or_those_of_its_own_format(stage):
    stage()
    assert JUDGED[2].endswith("USER: q2 ASSISTANT: ab")
    JUDGED.clear()
    stage(judge_tokenizer=True)
    assert JUDGED == [], "the answers are those of the first run"


def test_a_judge_in_another_format(stage):
    stage(judge_tokenizer=True)
    assert JUDGED[2] == "[INST] q2 [/INST]ab" and JUDGED[8] == "[INST] q2 [/INST]abcd"


def test_what_was_judged_is_not_judged_again(stage, monkeypatch):
    versions, _ = stage()
    monkeypatch.setitem(ANSWERS, "first", " abcdefg")
    assert stage()[0] == versions


def test_the_baseline_is_checked_before():
    with pytest.raises(ValueError, match="baseline='x': choose one of the versions, one, two"):
        stage_module.check(ConfigDict({"baseline": "x", "versions": ("one", "two")}), {}, None)
