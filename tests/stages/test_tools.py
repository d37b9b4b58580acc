"""The stage of table 15's protocol, with models that answer by a script."""

import gzip
import json
import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.inference import tools as tools_file
from llama2_jax.inference.generate import Sample, Sampling
from llama2_jax.inference.generate import generate as real_generate
from llama2_jax.pipeline import encoding, sampling
from llama2_jax.pipeline.stage_files import read_jsonl
from llama2_jax.pipeline.tool_questions import with_tool_prompt
from llama2_jax.stages import tools
from llama2_jax.text.dialogue import encode_prompt
from tests.random_model import sharpened_params
from tests.smallest import Letters, smallest_model, smallest_runtime

LETTERS = Letters()


def questions(*, seed):
    del seed
    return [{"messages": [{"role": "user", "content": f"What is {n} + {n}?"}], "answer": f"{2 * n}"} for n in (3, 4)]


def unanswered(*, seed):
    return [{"messages": one["messages"]} for one in questions(seed=seed)]


def said_by(params, prompt):
    """What a model writes next: "caller" calls the calculator where the prompt has one, "guesser" always says 6."""
    if params == "guesser" or "CALCULATOR" not in prompt:
        return "The answer is 6."
    if prompt.count("->") == 1:  # that of the prompt's syntax
        return f"CALL_API_1: CALCULATOR | {prompt.partition('What is ')[2].partition('?')[0]} -> and so on"
    return f" The answer is {prompt.rpartition(chr(34) + ' ')[0].rpartition('->')[2]}"


def sample(index, text, most, has_ended=None):
    ids = [*LETTERS.encode(text), LETTERS.eos_id][:most]
    size = next((size for size in range(len(ids)) if has_ended and has_ended(index, ids[:size])), len(ids))
    tokens = np.asarray(ids[:size], np.int32)
    return Sample(index, tokens, bool(tokens[-1] == LETTERS.eos_id), np.zeros(size, np.float32))


@pytest.fixture
def stage(tmp_path, monkeypatch):
    def generate(model, params, prompts, how, key, eos_id, **_):
        return [sample(i, said_by(params, LETTERS.decode(one)), how.max_new_tokens) for i, one in enumerate(prompts)]

    def generate_until(model, params, prompts, how, key, eos_id, has_ended, prompt_ids):
        return [
            sample(i, said_by(params, LETTERS.decode(one)), how.max_new_tokens, has_ended)
            for i, one in enumerate(prompts)
        ]

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(tools_file, "generate_until", generate_until)
    monkeypatch.setattr(sampling, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=folder.name))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: LETTERS)

    def run(**changes):
        config = ConfigDict({
            "versions": ("first", "second"),
            "tools": {"CALCULATOR": {"description": "sums", "function": "llama2_jax.inference.calculator.calculator"}},
            "questions": {"sums": {"function": f"{__name__}.questions", "format": "prompts"}},
            "right": {"function": "llama2_jax.evaluation.final_number.right_numbers"},
            "benchmarks": "benchmarks", "benchmark_tasks": (), "questions_per_task": 0,
            "most_calls": 3, "result_characters": 50, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 90, **changes,
        })  # fmt: skip
        tools.check(config, {}, None)
        runtime = smallest_runtime(tmp_path, model=smallest_model(max_length=500))
        inputs = {"tokenizer": tmp_path, "models": (tmp_path / "guesser", tmp_path / "caller")}
        return tools.run(config, inputs, runtime)["tool_use"], runtime.folder

    return run


@pytest.fixture
def untrained(tmp_path, monkeypatch):
    """The stage with the smallest network, which says what comes."""
    model = smallest_model(max_length=400)
    params = sharpened_params(model)
    monkeypatch.setattr(sampling, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=params))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: LETTERS)
    return model, params, smallest_runtime(tmp_path, model=model), {"tokenizer": tmp_path, "models": (tmp_path,)}


def test_a_network_answers_as_generate_has_it(untrained):
    model, params, runtime, inputs = untrained
    config = ConfigDict({
        "versions": ("one",), "questions": {"sums": {"function": f"{__name__}.questions", "format": "prompts"}},
        "tools": {"CALCULATOR": {"description": "sums", "function": "llama2_jax.inference.calculator.calculator"}},
        "right": {"function": "llama2_jax.evaluation.final_number.right_numbers"}, "benchmark_tasks": (),
        "most_calls": 3, "result_characters": 50, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 40,
    })  # fmt: skip
    rows = tools.run(config, inputs, runtime)["tool_use"]
    assert [row["with_tools"] for row in rows] == [False, True]
    described = with_tool_prompt(config, questions(seed=0)[1])
    asked = encode_prompt(LETTERS, described["messages"])
    (wanted,) = real_generate(model, params, [asked], Sampling(0.0, 1.0, 40), runtime.key, LETTERS.eos_id)
    answers = read_jsonl(runtime.folder / "answers_one.jsonl")
    assert answers[3]["tokens"] == wanted.tokens.tolist() and not any(answers[3]["injected"])


def shares(rows, name):
    return {(row["version"], row["with_tools"]): row[name] and row[name]["share"] for row in rows}


def test_every_version_answers_without_tools_and_with_them(stage):
    rows, folder = stage()
    assert shares(rows, "right") == {
        ("first", False): 0.5, ("first", True): 0.5, ("second", False): 0.5, ("second", True): 1.0,
    }  # fmt: skip
    assert list(shares(rows, "called").values()) == [0, 0, 0, 1]
    assert list(shares(rows, "right_calls").values()) == [None, None, None, 1]
    assert {row["questions"] for row in rows} == {2} and {row["set"] for row in rows} == {"sums"}
    assert json.loads((folder / "tools.json").read_text())["tool_use"] == rows
    answers = [row for row in read_jsonl(folder / "answers_second.jsonl") if row["with_tools"]]
    assert answers[1]["calls"] == [{"text": "CALL_API_1: CALCULATOR | 4 + 4 ->", "result": "8", "problem": ""}]
    assert answers[1]["messages"][0]["content"] == "What is 4 + 4?" and "TOOL_NAME" not in str(answers[1]["messages"])
    injected = [token for token, flag in zip(answers[1]["tokens"], answers[1]["injected"], strict=True) if flag]
    assert LETTERS.decode(injected) == '"8"'


def test_svamp_is_read_from_its_file(stage, tmp_path):
    folder = tmp_path / "benchmarks/svamp"
    folder.mkdir(parents=True)
    rows = [{"Body": "Ann adds.", "Question": f"What is {n} + 3?", "Answer": n + 3.0} for n in (3, 4, 5)]
    with gzip.open(folder / "SVAMP.json.gz", "wt") as file:
        json.dump(rows, file)
    found, _ = stage(questions={}, benchmark_tasks=("svamp",), questions_per_task=2)
    assert {(row["set"], row["questions"]) for row in found} == {("svamp", 2)}
    assert shares(found, "right")["second", True] == 1 and shares(found, "right")["second", False] == 0.5


def test_what_cannot_be_asked(stage):
    with pytest.raises(ValueError, match="no such file"):
        stage(benchmark_tasks=("svamp",))
    with pytest.raises(ValueError, match="no task"):
        stage(benchmark_tasks=("gsm",))
    with pytest.raises(ValueError, match="nothing to ask"):
        stage(questions={})
    with pytest.raises(ValueError, match="tools is empty"):
        stage(tools={})
    with pytest.raises(ValueError, match="question 0 of sums has no `answer`"):
        stage(questions={"sums": {"function": f"{__name__}.unanswered", "format": "prompts"}})
    with pytest.raises(ValueError, match="none of 2 prompts has at most"):
        stage(max_new_tokens=450)
