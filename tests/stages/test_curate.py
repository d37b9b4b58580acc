"""Dialogues are kept or left out, with the reason."""

import json

import pytest
from ml_collections import ConfigDict

from llama2_jax.stages import curate
from tests.smallest import smallest_runtime

ANSWERS = ("I cannot help with that.", "Use a pot and a spoon.", "No.", "Human: what is this about?")


def dialogues(*, seed, count):
    del seed
    return [
        {"messages": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": answer}]}
        for answer in ANSWERS[:count]
    ]


def run(folder, count=4):
    source = {"function": f"{__name__}.dialogues", "format": "dialogues", "arguments": {"count": count}}
    config = ConfigDict({
        "sources": {"made": source}, "fewest_words": 3,
        "classifier": {"function": "llama2_jax.evaluation.refusals.refusals", "arguments": {}},
    })  # fmt: skip
    return curate.run(config, {}, smallest_runtime(folder))


def test_what_is_left_out_is_written_with_its_reason(tmp_path):
    assert run(tmp_path) == {"kept": 1, "left_out": {"malformed": 1, "refusal": 1, "short": 1}}
    (kept,) = [json.loads(line) for line in (tmp_path / "dialogues.jsonl").read_text().splitlines()]
    assert kept["messages"][1]["content"] == ANSWERS[1] and kept["source"] == "made"
    left_out = [json.loads(line) for line in (tmp_path / "left_out.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in left_out] == ["refusal", "short", "malformed"]


def test_nothing_is_kept(tmp_path):
    with pytest.raises(ValueError, match=r"none of 1 dialogues is kept: \{'refusal': 1\}"):
        run(tmp_path, count=1)
    with pytest.raises(ValueError, match="sources have no dialogues"):
        curate.check(ConfigDict({"sources": {}}), {}, lambda sources: 0)
