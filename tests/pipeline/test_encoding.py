"""From records to token ids."""

import pytest
from ml_collections import ConfigDict

from llama2_jax.pipeline.encoding import encode_prompts, encode_row, read_prompts, read_records, source_weights
from tests.smallest import Letters, smallest_runtime


def prompt(text):
    return {"messages": [{"role": "user", "content": text}], "safety": False}


def test_prompts_that_leave_no_room_for_an_answer_are_left_out(tmp_path):
    records = [prompt("a"), prompt("b" * 30), prompt("c")]
    kept, encoded = encode_prompts(records, 64 - 20, Letters(), smallest_runtime(tmp_path))
    assert kept == [records[0], records[2]]
    assert encoded[0] == [Letters.bos_id, *map(ord, "[INST] a [/INST]")]


def test_a_prompt_that_just_fits_is_kept(tmp_path):
    runtime = smallest_runtime(tmp_path)
    size = 1 + len("[INST] a [/INST]")
    assert len(encode_prompts([prompt("a")], 64 - size, Letters(), runtime)[0]) == 1
    with pytest.raises(ValueError, match=f"the_stage: none of 1 prompts has at most {size - 1} tokens"):
        encode_prompts([prompt("a")], 64 - size + 1, Letters(), runtime)


def test_a_sampled_answer_is_trained_on_by_its_own_ids():
    row = {**prompt("a"), "response": "(text)", "response_tokens": [*map(ord, " hi"), Letters.eos_id]}
    encoded = encode_row(Letters(), row)
    assert encoded.tokens.tolist() == [Letters.bos_id, *map(ord, "[INST] a [/INST] hi"), Letters.eos_id]
    assert encoded.tokens[encoded.loss_mask == 1].tolist() == row["response_tokens"]


def test_a_dialogue_has_the_loss_that_it_asks_for():
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "two"},
    ]
    trained = {}
    for record in ({"messages": messages}, {"messages": messages, "loss": "last"}):
        encoded = encode_row(Letters(), record)
        trained[record.get("loss")] = Letters().decode(encoded.tokens[encoded.loss_mask == 1]).split()
    assert trained == {None: ["one", "two"], "last": ["two"]}


def numbers(*, seed, start):
    return [{"number": start, "seed": seed}]


def test_sources_are_read_one_after_the_other_with_the_world_s_seed(tmp_path):
    source = {"function": f"{__name__}.numbers", "format": "raw"}
    sources = ConfigDict({name: {**source, "arguments": {"start": start}} for name, start in (("a", 1), ("b", 2))})
    records = read_records(sources, smallest_runtime(tmp_path, experiment_seed=9), "raw")
    assert [(record["source"], record["number"], record["seed"]) for record in records] == [("a", 1, 9), ("b", 2, 9)]


def bare_prompts(*, seed):
    del seed
    return [{"messages": [{"role": "user", "content": "Tell me a fact."}]}]


def test_every_prompt_has_what_stages_read_of_it(tmp_path):
    sources = ConfigDict({"mine": {"function": f"{__name__}.bare_prompts", "format": "prompts"}})
    (record,), _ = read_prompts(sources, 8, Letters(), smallest_runtime(tmp_path))
    assert record["safety"] is False and record["category"] == ""


def test_a_weight_that_would_have_no_effect_is_refused(tmp_path):
    source = {"function": f"{__name__}.bare_prompts", "format": "prompts"}
    sources = ConfigDict({"a": {**source, "weight": 1.0}, "b": {**source, "weight": 0.5}})
    assert source_weights(sources) == {"a": 1.0, "b": 0.5}
    with pytest.raises(ValueError, match=r"the_stage: source 'b' has weight=0\.5, but its records are read once each"):
        read_records(sources, smallest_runtime(tmp_path), "prompts")
    sources.b.weight = 1
    assert len(read_records(sources, smallest_runtime(tmp_path), "prompts")) == 2


def test_records_of_another_kind_than_a_stage_reads_are_refused(tmp_path):
    sources = ConfigDict({"a": {"function": f"{__name__}.bare_prompts", "format": "prompts"}})
    with pytest.raises(ValueError, match="source 'a' has records of kind 'prompts' and 'dialogues' is wanted here"):
        read_records(sources, smallest_runtime(tmp_path), "dialogues")
