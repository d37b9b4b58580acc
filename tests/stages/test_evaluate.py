"""All versions answer the same prompts; a judge and the reward models look at them."""

import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.evaluation.measures import MEASURES, Measure, to_json
from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline import encoding, sampling
from llama2_jax.pipeline.reward_models import Scores
from llama2_jax.pipeline.stage_files import read_json, read_jsonl
from llama2_jax.stages import evaluate
from tests.smallest import Letters, smallest_model, smallest_runtime

# What each version answers to everything; its length is what the judge goes by.
ANSWERS = {"first": " ab", "second": " abcd", "third": " ab"}


def prompts(*, seed):
    del seed
    return [
        {"messages": [{"role": "user", "content": f"question {index}"}], "safety": index % 2 == 0, "category": "kind"}
        for index in range(6)
    ]


def dialogues(*, seed):
    del seed
    return [
        {"turns": ["a", "b", "c", "d"][:count], "messages": [{"role": "system", "content": "Be kind."}]}
        for count in (4, 4, 2)
    ]


def judge(rows, *, seed):
    """Longer is better and, above three letters, a violation; kept is an instruction in the first two turns."""
    del seed
    return [
        {
            "helpfulness": len(row["response"]) / 10,
            "safety": 1 - len(row["response"]) / 10,
            "violation": len(row["response"]) > 3,
            "refusal": False,
            "instruction_kept": sum(message["role"] == "user" for message in row["messages"]) <= 2,
        }
        for row in rows
    ]


@pytest.fixture
def stage(tmp_path, monkeypatch):
    def generate(model, params, prompts, sampling, key, eos_id, **_):
        tokens = np.asarray([*map(ord, ANSWERS[params]), eos_id], np.int32)
        return [Sample(index, tokens, True, np.zeros(len(tokens))) for index in range(len(prompts))]

    def score(rows):
        scores = np.asarray([len(row["tokens"]) for row in rows], np.float32)
        return Scores(scores, -scores, scores)

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(sampling, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=folder.name))
    monkeypatch.setattr(evaluate, "load_reward_models", lambda *_, **__: types.SimpleNamespace(score=score))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())
    runtime = smallest_runtime(tmp_path, model=smallest_model(max_length=256))

    def run(**changes):
        config = ConfigDict({
            "versions": ("one", "two", "three"), "baseline": "one",
            "prompts": {"made": {"function": f"{__name__}.prompts", "format": "prompts"}},
            "instruction_dialogues": {"made": {"function": f"{__name__}.dialogues", "format": "raw"}},
            "instruction_turns": (2, 4, 6), "judge": {"function": f"{__name__}.judge"},
            "temperature": 0.6, "top_p": 0.9, "max_new_tokens": 8, "safety_threshold": 0.15, **changes,
        })  # fmt: skip
        inputs = {
            "tokenizer": tmp_path / "tokenizer",
            "models": tuple(tmp_path / name for name in ("first", "second", "third")),
        }
        return evaluate.run(config, inputs, runtime)["versions"], runtime.folder

    return run


def test_versions_are_measured_in_order(stage):
    versions, folder = stage()
    assert [version["name"] for version in versions] == ["one", "two", "three"]
    assert [version["helpfulness"] for version in versions] == pytest.approx([0.2, 0.4, 0.2])
    assert [version["violation_rate"] for version in versions] == [0, 1, 0]
    assert [version["answer_tokens"] for version in versions] == [4, 6, 4]  # a space before them and EOS behind them
    # BOS and "[INST] question 0 [/INST]".
    assert [version["reward_helpfulness"] for version in versions] == [30, 32, 30]
    assert read_json(folder / "evaluation.json") == {"versions": versions, "prompts": 6, "measures": to_json(MEASURES)}


def test_win_rates_are_over_the_baseline(stage):
    one, two, three = stage()[0]
    assert one["win_rate_vs_sft"] is None and three["win_rate_vs_sft"] is None  # nothing but ties
    assert two["win_rate_vs_sft"] == 0.5
    assert two["helpfulness_win_rate_vs_sft"] == 1 and two["safety_win_rate_vs_sft"] == 0
    assert two["win_rate_standard_error"] == pytest.approx(np.sqrt(0.25 / 6))


def test_instructions_are_measured_by_turn(stage):
    # Of three dialogues two have four turns, and none has six.
    for version in stage()[0]:
        assert version["instruction_kept"] == {"2": 1.0, "4": 0.0, "6": None}


def test_without_dialogues_nothing_is_said_of_instructions(stage):
    for version in stage(instruction_dialogues={})[0]:
        assert version["instruction_kept"] == {"2": None, "4": None, "6": None}


def test_every_answer_is_written_with_its_verdict(stage):
    _, folder = stage()
    for name, answer in zip(("one", "two", "three"), ANSWERS.values(), strict=True):
        rows = read_jsonl(folder / f"answers_{name}.jsonl")
        assert [row["messages"] for row in rows] == [prompt["messages"] for prompt in prompts(seed=0)]
        assert {row["response"] for row in rows} == {answer.strip()}
        assert Letters().decode(rows[0]["tokens"]) == f"[INST] question 0 [/INST]{answer}"
        assert rows[0]["verdict"]["violation"] == (name == "two")


OWN_MEASURES = (
    *MEASURES,
    Measure("harmless_safety", "safety of harmless answers", verdict="safety", prompts="harmless"),
)


def test_measures_of_ones_own_are_named_in_the_config(stage):
    versions, folder = stage(measures=f"{__name__}.OWN_MEASURES")
    assert [version["harmless_safety"] for version in versions] == pytest.approx([0.8, 0.6, 0.8])
    assert read_json(folder / "evaluation.json")["measures"] == to_json(OWN_MEASURES)
