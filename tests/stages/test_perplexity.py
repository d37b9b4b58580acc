"""The perplexity of people's answers, beside a computation one token at a time."""

import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.models.heads import build_model, init_model
from llama2_jax.pipeline import encoding, sampling
from llama2_jax.stages import perplexity
from llama2_jax.text.dialogue import encode_dialogue
from tests.smallest import Letters, smallest_model, smallest_runtime

MODEL = smallest_model(max_length=64)
PARAMS = {name: init_model(MODEL, "language", jax.random.key(seed)) for name, seed in (("one", 0), ("two", 1))}
TURNS = (("a", "bcd"), ("ef", "g", "h", "ijk"), ("x" * 60, "y"))


def dialogues(*, seed):
    del seed
    roles = ("user", "assistant") * 2
    return [
        {"messages": [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]}
        for turns in TURNS
    ]


def slowly(params, record):
    encoded = encode_dialogue(Letters(), record["messages"])
    tokens = np.asarray(encoded.tokens)[None]
    inputs = (tokens, np.arange(tokens.shape[1])[None], np.ones_like(tokens))
    logits = np.asarray(build_model(MODEL, "language").apply({"params": params}, *inputs)[0], np.float64)
    losses = [
        np.log(np.exp(logits[place - 1]).sum()) - logits[place - 1, token]
        for place, token in enumerate(tokens[0])
        if encoded.loss_mask[place]
    ]
    return np.exp(np.mean(losses))


@pytest.fixture
def stage(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sampling, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=PARAMS[folder.name])
    )
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())

    def run(**changes):
        config = ConfigDict({
            "versions": ("first", "second"), "clip": 1e9,
            "sources": {"made": {"function": f"{__name__}.dialogues", "format": "dialogues"}}, **changes,
        })  # fmt: skip
        inputs = {"tokenizer": tmp_path, "models": (tmp_path / "one", tmp_path / "two")}
        return perplexity.run(config, inputs, smallest_runtime(tmp_path, model=MODEL))

    return run


def test_it_is_what_is_computed_one_token_at_a_time(stage):
    results = stage()
    assert (results["dialogues"], results["too_long"]) == (2, 1)
    wanted = {name: [slowly(PARAMS[name], one) for one in dialogues(seed=0)[:2]] for name in PARAMS}
    first, second = results["perplexity"]
    for row, name in ((first, "one"), (second, "two")):
        assert row["perplexity"] == pytest.approx(np.mean(wanted[name]), rel=1e-4)
        assert row["clipped"] == 0
    assert first["difference"] == 0
    differences = np.subtract(wanted["two"], wanted["one"])
    assert second["difference"] == pytest.approx(differences.mean(), abs=1e-2)
    assert second["difference_standard_error"] == pytest.approx(differences.std(ddof=1) / 2**0.5, abs=1e-2)


def test_it_is_clipped_answer_by_answer(stage):
    whole = [slowly(PARAMS["one"], one) for one in dialogues(seed=0)[:2]]
    clip = sum(whole) / 2
    row = stage(clip=clip)["perplexity"][0]
    assert row["perplexity"] == pytest.approx((min(whole) + clip) / 2, rel=1e-4) and row["clipped"] == 0.5


def test_a_clip_that_leaves_nothing():
    with pytest.raises(ValueError, match=r"clip=1\.0: no perplexity is below 1"):
        perplexity.check(ConfigDict({"clip": 1.0}), {}, None)
