"""Many answers to each prompt, at several temperatures, by several versions."""

import json
import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline import encoding, sampling
from llama2_jax.stages import diversity
from tests.smallest import Letters, smallest_runtime


def prompts(*, seed):
    del seed
    categories = ("fact", "story", "other", "fact", "story", "fact")
    return [
        {"messages": [{"role": "user", "content": f"question {index}"}], "category": category}
        for index, category in enumerate(categories)
    ]


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Answers of 0, 1, .. words that differ: the hotter, the more; the version "same" always says the same."""
    asked = []

    def generate(model, params, prompts, sampling, key, eos_id, *, samples_per_prompt, prompt_ids, **_):
        asked.append((params, sampling.temperature, tuple(prompt_ids)))
        samples = []
        for index in prompt_ids:
            for number in range(samples_per_prompt):
                different = 0 if params == "same" else round(4 * sampling.temperature)
                words = [f"{'abcd'[i]}{number}" if i < different else "abcd"[i] for i in range(4)]
                tokens = [*map(ord, " ".join(words)), eos_id]
                samples.append(Sample(index, np.asarray(tokens, np.int32), True, np.zeros(len(tokens), np.float32)))
        return samples

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(sampling, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=folder.name))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())

    def run(**changes):
        runtime = smallest_runtime(tmp_path)
        config = ConfigDict({
            "versions": ("one", "two"), "kinds": {"factual": ("fact",), "creative": ("story",)},
            "prompts": {"made": {"function": f"{__name__}.prompts", "format": "prompts"}},
            "prompts_per_kind": 2, "answers_per_prompt": 3, "temperatures": (0.0, 0.5, 1.0), "top_p": 1.0,
            "max_new_tokens": 8, **changes,
        })  # fmt: skip
        inputs = {"tokenizer": tmp_path, "models": (tmp_path / "varied", tmp_path / "same")}
        return diversity.run(config, inputs, runtime)["self_bleu"], runtime.folder, asked

    return run


def test_every_version_and_temperature_has_a_row_of_each_kind(stage):
    rows, folder, asked = stage()
    assert [(row["version"], row["temperature"], row["kind"]) for row in rows] == [
        (version, temperature, kind)
        for version in ("one", "two")
        for temperature in (0.0, 0.5, 1.0)
        for kind in ("creative", "factual")
    ]
    assert {ids for _, _, ids in asked} == {(1, 4, 0, 3)}, "the first two of each kind"
    written = json.loads((folder / "diversity.json").read_text())
    assert written["self_bleu"] == rows
    assert [messages[0]["content"] for messages in written["prompts"]["creative"]] == ["question 1", "question 4"]


def test_answers_that_differ_more_have_less(stage):
    rows, *_ = stage()
    factual = {(row["version"], row["temperature"]): row["self_bleu"] for row in rows if row["kind"] == "factual"}
    assert factual["one", 0.0] == pytest.approx(100)
    assert factual["one", 0.0] > factual["one", 0.5] > factual["one", 1.0]
    assert all(factual["two", temperature] == pytest.approx(100) for temperature in (0.0, 0.5, 1.0))
    assert all(row["prompts"] == 2 and row["standard_deviation"] == 0 for row in rows)


def test_a_kind_without_prompts(stage):
    with pytest.raises(
        ValueError, match="no prompt of the kind factual has the category x or y; there are fact, other"
    ):
        stage(kinds={"factual": ("x", "y")})
    with pytest.raises(ValueError, match="answers_per_prompt=1: an answer is compared with others"):
        diversity.check(ConfigDict({"answers_per_prompt": 1}), {}, None)


def test_the_mean_over_prompts_with_its_spread():
    assert diversity.spread([50.0, 70.0]) == {
        "self_bleu": 60.0, "standard_deviation": pytest.approx(200**0.5), "prompts": 2,
    }  # fmt: skip
    assert diversity.spread([50.0])["standard_deviation"] == 0.0
