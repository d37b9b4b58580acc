"""Turns become messages, and consecutive ones of one role are joined."""

import pytest

from llama2_jax.data.turns import merge


def messages(*turns):
    return [{"role": role, "content": content, **rest} for role, content, rest in turns]


def test_turns_are_merged_by_role():
    turns = messages(("user", " a ", {}), ("user", "b", {}), ("assistant", "c", {}), ("assistant", "", {}))
    assert merge(turns) == [{"role": "user", "content": "a\n\nb"}, {"role": "assistant", "content": "c"}]


def test_joined_answers_are_trained_on_together_or_not_at_all():
    left_out = {"weight": 0}
    turns = messages(("user", "a", {}), ("assistant", "b", left_out), ("assistant", "c", left_out))
    assert merge(turns)[1] == {"role": "assistant", "content": "b\n\nc", "weight": 0}
    with pytest.raises(ValueError, match="two consecutive turns are the assistant's and are joined, but only one"):
        merge(messages(("user", "a", {}), ("assistant", "b", left_out), ("assistant", "c", {})))
