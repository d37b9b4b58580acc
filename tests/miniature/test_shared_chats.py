"""Shared conversations: what has to be cleaned is there, and cleaned they are dialogues of this world."""

import pytest

from llama2_jax.data.sources import read
from llama2_jax.miniature.judge import judge
from llama2_jax.miniature.shared_chats import conversations

PREPARE = {"function": "llama2_jax.data.sharegpt.cleaned", "arguments": {"without": ("USER:",)}}


@pytest.fixture(scope="module")
def shared():
    return conversations(seed=0, count=200)


def test_there_is_much_to_clean(shared):
    values = [turn["value"] for one in shared for turn in one["conversations"]]
    assert 0.05 < sum("<" in value for value in values) / len(values) < 0.3
    firsts = [one["conversations"][0]["from"] for one in shared]
    lasts = [one["conversations"][-1]["from"] for one in shared]
    assert firsts.count("gpt") >= 3 and lasts.count("human") >= 3
    assert sum("ist" in value or "Hola" in value or "こ" in value for value in values) >= 5
    assert conversations(seed=0, count=5) == shared[:5] != conversations(seed=1, count=5)


def test_cleaned_they_are_answered_questions_of_this_world(shared):
    source = {
        "function": "llama2_jax.miniature.shared_chats.conversations", "format": "sharegpt", "prepare": PREPARE,
        "arguments": {"count": 200},
    }  # fmt: skip
    records = read(source, "", seed=0, kind="dialogues")
    assert 170 < len(records) < 200 and len(shared) == 200
    good = 0
    for record in records:
        messages = record["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert not any("<" in message["content"] or "Copy code" in message["content"] for message in messages)
        verdict = judge(messages[:-1], messages[-1]["content"], seed=0)  # raises for what is not of this world
        good += verdict.safety > 0.5 and (verdict.right or verdict.refusal)
    assert good / len(records) > 0.8
