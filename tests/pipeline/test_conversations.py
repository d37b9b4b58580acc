"""A model answers turn after turn."""

import dataclasses

import jax
import numpy as np
import pytest

from llama2_jax.inference import turns
from llama2_jax.inference.generate import Sample, Sampling, generate
from llama2_jax.pipeline.conversations import converse
from llama2_jax.pipeline.sampling import Policy
from llama2_jax.text.dialogue import encode_prompt
from tests.random_model import sharpened_params
from tests.smallest import Letters, smallest_model

SAMPLING = Sampling(0.7, 0.9, max_new_tokens=8)


@pytest.fixture
def asked(monkeypatch):
    """Answers " one", " two", ..; what the model was asked, turn by turn."""
    said = []

    def answer_turn(dialogues, prompts, sampling, key, answer_ids, eos_id):
        said.append([Letters().decode(prompt) for prompt in prompts.values()])
        text = [" one", " two", " three"][len(said) - 1]
        tokens = np.asarray([*map(ord, text), eos_id], np.int32)
        return dialogues, {row: Sample(row, tokens, True, np.zeros(len(tokens))) for row in prompts}

    monkeypatch.setattr(turns, "begin", lambda config, params, rows: rows)
    monkeypatch.setattr(turns, "answer_turn", answer_turn)
    return said


def talk(user_turns, length=256, **options):
    policy = Policy(smallest_model(max_length=length), {"head": np.zeros(1)}, Letters())
    return converse(policy, user_turns, SAMPLING, jax.random.key(0), **options)


def test_each_answer_is_given_with_all_before_it(asked):
    (conversation,) = talk([["a", "b", "c"]])
    assert asked == [
        ["[INST] a [/INST]"],
        ["[INST] a [/INST] one[INST] b [/INST]"],
        ["[INST] a [/INST] one[INST] b [/INST] two[INST] c [/INST]"],
    ]
    assert [answer["content"] for answer in conversation.answers] == ["one", "two", "three"]
    assert conversation.answers[0]["tokens"] == [*map(ord, " one"), Letters.eos_id]
    assert conversation.finished == [True] * 3


def test_dialogues_may_differ_in_length(asked):
    conversations = talk([["a", "b"], ["x"], ["y", "z", "w"]])
    assert [len(texts) for texts in asked] == [3, 2, 1]
    assert [len(conversation.answers) for conversation in conversations] == [2, 1, 3]
    assert conversations[2].messages[-2]["content"] == "w"


def test_a_dialogue_ends_where_the_context_is_full(asked):
    long, short = talk([["a", "b" * 40, "c"], ["a", "b"]], length=64)
    assert len(long.answers) == 1
    assert len(short.answers) == 2
    assert len(asked) == 2


def test_a_system_message_stands_in_the_first_turn(asked):
    (conversation,) = talk([["a", "b"]], systems=["Be kind."])
    assert asked[1] == ["[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\na [/INST] one[INST] b [/INST]"]
    assert conversation.messages[0] == {"role": "system", "content": "Be kind."}


def test_what_a_judge_reads_of_a_turn(asked):
    (conversation,) = talk([["a", "b"]], systems=["Be kind."])
    row = conversation.row(2)
    assert row["response"] == "two"
    assert [message["content"] for message in row["messages"]] == ["Be kind.", "a", "one", "b"]


@pytest.mark.parametrize("rows", [2, 128])
def test_the_answers_are_those_to_whole_prompts(rows):
    """Of dialogues that differ in length, in few rows and in many: as `generate` gives them, turn by turn."""
    model = dataclasses.replace(smallest_model(max_length=256), generation_rows=rows)
    policy = Policy(model, sharpened_params(model), Letters())
    said = [["a", "bc", "d"], ["xyz" * 12, "x"], ["k", "l" * 70, "m", "n", "o"]]
    found = converse(policy, said, SAMPLING, jax.random.key(3), systems=["Be kind.", "", "Be brief."])
    assert [len(conversation.answers) for conversation in found] == [3, 2, 5]
    for index, conversation in enumerate(found):
        for turn, answer in enumerate(conversation.answers):
            before = conversation.row(turn + 1)["messages"]
            key = jax.random.fold_in(jax.random.key(3), turn)
            (wanted,) = generate(model, policy.params, [encode_prompt(Letters(), before)], SAMPLING, key,
                                 Letters.eos_id, prompt_ids=[index])  # fmt: skip
            assert answer["tokens"] == wanted.tokens.tolist()
            assert conversation.finished[turn] == wanted.finished


def test_no_dialogues():
    assert talk([]) == []
