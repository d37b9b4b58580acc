"""Markers of quality, and instructions by sub-collection."""

import collections

import pytest

from llama2_jax.data.sources import read
from llama2_jax.data.system_messages import instructed, marked

USER = {"role": "user", "content": "Who ran?"}
EARLIER = [USER, {"role": "assistant", "content": "The dog."}, {"role": "user", "content": "And then?"}]


def comparisons(*, seed):
    del seed
    return [
        {"messages": EARLIER, "chosen": "It sat.", "rejected": "No.", "domain": "helpfulness", "chosen_tokens": [5]}
    ]


@pytest.mark.parametrize(("answer", "said"), [("chosen", "It sat."), ("rejected", "No.")])
def test_each_side_of_a_comparison_is_a_dialogue_under_its_marker(answer, said):
    prepare = {
        "function": "llama2_jax.data.system_messages.marked", "arguments": {"marker": "a marker", "answer": answer},
    }  # fmt: skip
    source = {"function": f"{__name__}.comparisons", "format": "preferences", "kind": "dialogues", "prepare": prepare}
    (record,) = read(source, "", seed=0, kind="dialogues")
    told = {"role": "system", "content": "a marker"}
    assert record["messages"] == [told, *EARLIER, {"role": "assistant", "content": said}]
    assert record["loss"] == "last" and not record.keys() & {"chosen", "rejected", "chosen_tokens"}


def test_prompts_are_asked_under_a_marker_and_an_own_system_message_stays():
    system = {"role": "system", "content": "Be brief."}
    found = marked({"messages": [system, USER], "safety": True}, marker="a marker")
    assert found == {"messages": [{"role": "system", "content": "a marker\nBe brief."}, USER], "safety": True}
    assert marked({"messages": [USER]}, marker="a marker", without=("ran?",)) is None
    with pytest.raises(ValueError, match="there is no field chosen"):
        marked({"messages": [USER]}, marker="a marker", answer="chosen")


def test_a_sub_collection_s_instructions_are_drawn_alike_by_what_is_asked():
    choices = {"sums": ("", "Think.", "Say how."), "facts": ("Be brief.",)}
    told = collections.Counter()
    for number in range(600):
        record = {"messages": [{"role": "user", "content": f"question {number}"}], "category": "sums"}
        found = instructed(record, instructions=choices)
        assert found == instructed(record, instructions=choices)
        told[found["messages"][0]["content"] if len(found["messages"]) == 2 else ""] += 1
    # 600 draws of three: 200, within 4 standard errors.
    assert told.keys() == set(choices["sums"]) and all(abs(count - 200) < 47 for count in told.values())
    (first, _) = instructed({"messages": [USER], "category": "facts"}, instructions=choices)["messages"]
    assert first == {"role": "system", "content": "Be brief."}


def test_what_cannot_be_instructed_is_refused():
    with pytest.raises(ValueError, match="field category is 'poems'; there are instructions for sums"):
        instructed({"messages": [USER], "category": "poems"}, instructions={"sums": ("",)})
    record = {"messages": [{"role": "system", "content": "x"}, USER], "category": "sums"}
    with pytest.raises(ValueError, match="begin with a system message"):
        instructed(record, instructions={"sums": ("",)})
