"""Three versions that answer everything alike, and a judge of the length of answers, for tests of the evaluation."""

import types

import numpy as np
from ml_collections import ConfigDict

from llama2_jax.inference import turns
from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline import encoding, instruction_attention, sampling
from llama2_jax.pipeline.reward_models import Scores
from llama2_jax.stages import evaluate
from tests.smallest import Letters, smallest_model, smallest_runtime

# What each version answers to everything; its length is what the judge goes by.
ANSWERS = {"first": " ab", "second": " abcd", "third": " ab"}
# And its attention to every system message.
ATTENTION = {"first": 0.25, "second": 0.5, "third": 0.75}


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


def evaluation(tmp_path, monkeypatch):
    """Returns what runs the stage with changes to its config, and returns the versions and the stage's folder."""

    def generate(model, params, prompts, sampling, key, eos_id, **_):
        tokens = np.asarray([*map(ord, ANSWERS[params]), eos_id], np.int32)
        return [Sample(index, tokens, True, np.zeros(len(tokens))) for index in range(len(prompts))]

    def answer_turn(params, prompts, sampling, key, answer_ids, eos_id):
        samples = generate(None, params, prompts, sampling, key, eos_id)
        return params, dict(zip(prompts, samples, strict=True))

    def score(rows):
        scores = np.asarray([len(row["tokens"]) for row in rows], np.float32)
        return Scores(scores, -scores, scores)

    def largest_attention(params, tokens, *_, **__):
        return np.full(tokens.shape, ATTENTION[params], np.float32)

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(turns, "begin", lambda config, params, rows: params)
    monkeypatch.setattr(turns, "answer_turn", answer_turn)
    monkeypatch.setattr(instruction_attention, "largest_attention", largest_attention)
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
