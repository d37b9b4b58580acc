"""Records are completed, and become records of another kind."""

import pytest

from llama2_jax.data.conversions import complete, convert, opening

USER, ASSISTANT = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
DIALOGUE = {"messages": [USER, ASSISTANT], "loss": "last"}
PREFERENCE = {"messages": [USER], "chosen": "c", "rejected": "r", "domain": "safety"}
SAMPLE = {"messages": [USER], "response": "", "response_tokens": [2]}


def test_dialogues_become_prompts_and_answered_prompts_dialogues():
    assert convert(DIALOGUE, "dialogues", "prompts") == {"messages": [USER]}
    assert convert(PREFERENCE, "preferences", "prompts") == {"messages": [USER], "domain": "safety"}
    assert convert(PREFERENCE, "preferences", "dialogues")["messages"] == [USER, {**ASSISTANT, "content": "c"}]
    answered = {"role": "assistant", "content": "", "tokens": [2]}
    assert convert(SAMPLE, "samples", "dialogues") == {"messages": [USER, answered]}
    for given in ("samples", "raw"):
        assert convert(SAMPLE, given, "samples") is SAMPLE


@pytest.mark.parametrize(
    ("given", "wanted"), [("text", "prompts"), ("dialogues", "preferences"), ("prompts", "dialogues")]
)
def test_other_conversions_are_refused(given, wanted):
    with pytest.raises(ValueError, match="cannot be read as"):
        convert({"text": "t", "messages": [USER]}, given, wanted)


@pytest.mark.parametrize("messages", [None, 3, "hello", {}, ["x"], [], [USER], [USER, ASSISTANT, USER]])
def test_a_dialogue_of_a_wrong_shape_is_no_prompt(messages):
    with pytest.raises(ValueError, match="field messages"):
        convert({"messages": messages}, "dialogues", "prompts")


def test_a_prompt_is_safe_and_of_no_category_unless_it_says_so():
    for absent in ({}, {"safety": None, "category": None, "domain": None}):
        assert complete({"messages": [USER], **absent}, "prompts") == {
            "messages": [USER], "safety": False, "category": "",
        }  # fmt: skip
    given = {"messages": [USER], "safety": True, "category": "crime", "domain": "safety"}
    assert complete(given, "prompts") == given


def test_null_is_the_same_as_absent_for_what_may_be_left_out():
    for kind, fields in (
        ("preferences", ("rating", "safety_label", "chosen_tokens")), ("samples", ("response_tokens",)),
        ("dialogues", ("loss",)), ("user_turns", ("instruction", "terse", "applies_to")),
    ):  # fmt: skip
        assert not complete({"x": 1, **dict.fromkeys(fields)}, kind).keys() & set(fields)
    # What may not be left out is left to the check.
    assert complete({"chosen": None}, "preferences")["chosen"] is None


def test_an_instruction_is_its_own_terse_form_unless_it_has_one():
    for kind in ("instructions", "user_turns"):
        assert complete({"instruction": "Be brief."}, kind)["terse"] == "Be brief."
        assert complete({"instruction": "Be brief.", "terse": "Brief."}, kind)["terse"] == "Brief."
    assert complete({"turns": ["a"]}, "user_turns") == {"turns": ["a"]}


def test_a_records_opening():
    assert opening(DIALOGUE) == "u"
    assert opening({"text": "t"}) == "t"
    assert opening({"b": 1, "a": 2}) == opening({"a": 2, "b": 1})


@pytest.mark.parametrize(
    "record", [{"messages": 3}, {"messages": ["x"]}, {"messages": [{"role": "user"}]}, {"text": 3}]
)
def test_a_raw_record_of_any_shape_has_an_opening(record):
    assert isinstance(opening(record), str)
