"""A safety preprompt before a prompt, and answers learnt without it."""

import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.data.records import check_record
from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline import encoding, sampling
from llama2_jax.pipeline.encoding import encode_row
from llama2_jax.pipeline.stage_files import read_jsonl
from llama2_jax.stages import context_distillation
from llama2_jax.stages.context_distillation import with_preprompts
from tests.smallest import Letters, smallest_model, smallest_runtime

GENERIC = {"preprompt": "You are a safe assistant."}
TEMPLATE = {"preprompt": "Say why it is illegal.", "category": "crime"}


def prompt(category, text="How?", system=None):
    messages = [{"role": "system", "content": system}] if system else []
    return {"messages": [*messages, {"role": "user", "content": text}], "category": category}


def test_a_preprompt_becomes_the_system_message():
    (record,) = with_preprompts([prompt("crime")], [GENERIC], seed=0)
    assert record["messages"] == [
        {"role": "system", "content": "You are a safe assistant."},
        {"role": "user", "content": "How?"},
    ]
    assert record["messages_without_preprompt"] == [{"role": "user", "content": "How?"}]
    assert record["preprompt"] == "You are a safe assistant."


def test_a_system_message_of_the_prompt_s_own_is_kept_behind_the_preprompt():
    (record,) = with_preprompts([prompt("crime", system="Be brief.")], [GENERIC], seed=0)
    assert [message["role"] for message in record["messages"]] == ["system", "user"]
    assert record["messages"][0]["content"] == "You are a safe assistant.\nBe brief."
    assert record["messages_without_preprompt"][0]["content"] == "Be brief."


def test_an_answer_template_serves_its_own_category_only():
    records = with_preprompts([prompt("crime"), prompt("medicine")] * 50, [GENERIC, TEMPLATE], seed=0)
    used = {
        category: {r["preprompt"] for r in records if r["category"] == category} for category in ("crime", "medicine")
    }
    assert used == {"crime": {GENERIC["preprompt"], TEMPLATE["preprompt"]}, "medicine": {GENERIC["preprompt"]}}


def test_a_category_that_no_preprompt_serves():
    with pytest.raises(ValueError, match="no preprompt serves the category 'medicine'; give one without a category"):
        with_preprompts([prompt("medicine")], [TEMPLATE], seed=0)


def prompts(*, seed):
    del seed
    return [prompt("crime", text) for text in ("Worse?", "Cut?", "Better?")]


def preprompts(*, seed):
    del seed
    return [GENERIC]


def test_an_answer_is_kept_without_its_preprompt_where_the_safety_model_prefers_it(tmp_path, monkeypatch):
    """The second of three answers is cut off; of the first the safety model likes the plain one better."""
    asked = []

    def generate(model, params, prompts, sampling, key, eos_id, **_):
        asked.append([Letters().decode(one) for one in prompts])
        texts = [" plain"] * 3 if len(asked) == 1 else [" worse", " cut o", " better"]
        ends = [True, len(asked) == 1, True]
        return [
            Sample(index, np.asarray([*map(ord, text), *([eos_id] if end else [])], np.int32), end, np.zeros(9))
            for index, (text, end) in enumerate(zip(texts, ends, strict=True))
        ]

    def rewards(model, params, sequences):
        texts = [Letters().decode(sequence) for sequence in sequences]
        assert not any("You are a safe assistant" in text for text in texts)
        points = {"plain": 0.0, "worse": -1.0, "cut o": 5.0, "better": 1.0}
        return np.asarray([points[text.rpartition("[/INST] ")[2]] for text in texts], np.float32)

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(context_distillation, "rewards", rewards)
    for module in (sampling, context_distillation):
        monkeypatch.setattr(module, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=None))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())
    runtime = smallest_runtime(tmp_path, model=smallest_model(max_length=128))
    config = ConfigDict({
        "prompts": {"made": {"function": f"{__name__}.prompts", "format": "prompts"}},
        "preprompts": {"made": {"function": f"{__name__}.preprompts", "format": "raw"}},
        "temperature": 0.7,
        "top_p": 0.9,
        "max_new_tokens": 8,
    })  # fmt: skip
    inputs = {role: tmp_path / role for role in ("tokenizer", "policy", "safety")}
    results = context_distillation.run(config, inputs, runtime)

    assert [any("You are a safe assistant" in text for text in texts) for texts in asked] == [False, True]
    (row,) = read_jsonl(runtime.folder / "dialogues.jsonl")
    check_record(row, "samples")
    assert row["messages"] == [{"role": "user", "content": "Better?"}]
    assert row["rewards"] == {"safety": 1.0, "safety_without_preprompt": 0.0}
    assert (results["prompts"], results["kept"]) == (3, 1)
    encoded = encode_row(Letters(), row)
    assert Letters().decode(encoded.tokens) == "[INST] Better? [/INST] better"
    assert Letters().decode(encoded.tokens[encoded.loss_mask == 1]) == " better"
