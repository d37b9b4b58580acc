"""Rows of common formats become the project's records."""

import pytest

from llama2_jax.data.formats import kind_of, merge_turns, to_record


def record(row, format_name, columns=(), defaults=()):
    return to_record(row, format_name, dict(columns), dict(defaults))


def contents(made):
    return [(message["role"][0], message["content"]) for message in made["messages"]]


def test_alpaca():
    made = record({"instruction": "i", "input": "", "output": "o", "id": 7}, "alpaca")
    assert contents(made) == [("u", "i"), ("a", "o")] and made["id"] == 7
    made = record({"instruction": "i", "input": "x", "output": "o", "history": [["h", "g"]], "system": "s"}, "alpaca")
    assert contents(made) == [("s", "s"), ("u", "h"), ("a", "g"), ("u", "i\n\nx"), ("a", "o")]


def test_sharegpt():
    turns = [("system", "s"), ("human", "u"), ("gpt", "a"), ("human", "v"), ("human", "w"), ("gpt", "b")]
    made = record({"conversations": [{"from": role, "value": text} for role, text in turns]}, "sharegpt")
    assert contents(made) == [("s", "s"), ("u", "u"), ("a", "a"), ("u", "v\n\nw"), ("a", "b")]


def test_openai_chat():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turns = [
        {"role": "developer", "content": "s"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "c"},
    ]
    assert contents(record({"messages": turns}, "openai_chat")) == [("s", "s"), ("u", "ab"), ("a", "c")]


def test_hh_rlhf():
    before = "\n\nHuman: Hi\n\nAssistant: Hello.\nHow are you?\n\nHuman: Fine"
    row = {"chosen": f"{before}\n\nAssistant: Good!", "rejected": f"{before}\n\nAssistant: Human: is a word"}
    made = record(row, "hh_rlhf", defaults={"domain": "helpfulness"})
    assert contents(made) == [("u", "Hi"), ("a", "Hello.\nHow are you?"), ("u", "Fine")]
    assert (made["chosen"], made["rejected"], made["domain"]) == ("Good!", "Human: is a word", "helpfulness")


def test_hh_rlhf_turns_of_one_speaker_are_merged():
    row = {
        "chosen": "\n\nHuman: a\n\nHuman: b\n\nAssistant: c",
        "rejected": "\n\nHuman: a\n\nHuman: b\n\nAssistant: d\n\nAssistant: e",
    }
    made = record(row, "hh_rlhf")
    assert contents(made) == [("u", "a\n\nb")]
    assert (made["chosen"], made["rejected"]) == ("c", "d\n\ne")


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        ("\n\nHuman: a\n\nAssistant: ", "\n\nHuman: a\n\nAssistant: b", r"chosen: turn 2 of 2 \(Assistant\) is empty"),
        ("\n\nHuman: a\n\nAssistant: c", "\n\nHuman: b\n\nAssistant: c", "differ before their last answers"),
        ("\n\nHuman: a\n\nAssistant: c", "\n\nHuman: a", "rejected ends in a turn of Human"),
        ("Human says a", "", "chosen begins 'Human says a'"),
        (None, "", "chosen is of type NoneType"),
    ],
)
def test_hh_rlhf_lines_without_a_comparison_are_refused(chosen, rejected, message):
    with pytest.raises(ValueError, match=message):
        record({"chosen": chosen, "rejected": rejected}, "hh_rlhf")


@pytest.mark.parametrize(
    ("row", "format_name", "message"),
    [
        ({"instruction": "i"}, "alpaca", "there is no field output; there are instruction"),
        ({"instruction": "i", "output": "o", "history": [["h"]]}, "alpaca", "field history, item 0"),
        (
            {"conversations": [{"from": "bing", "value": "x"}]},
            "sharegpt",
            "turn 0: from is 'bing'; wanted one of system",
        ),
        ({"conversations": None}, "sharegpt", "conversations is of type NoneType; wanted a list"),
        ({"conversations": [{"from": "human"}]}, "sharegpt", "conversations, item 0, value is of type NoneType"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "openai_chat", "turn 0: role is 'tool'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "openai_chat",
            "parts that are not text",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "openai_chat", "not a string"),
    ],
)
def test_rows_of_another_format_are_refused(row, format_name, message):
    with pytest.raises(ValueError, match=message):
        record(row, format_name)


def test_columns_become_dialogues():
    row = {"instruction": "i", "context": "c", "response": "r", "category": "x"}
    columns = {"user": "instruction", "context": "context", "assistant": "response"}
    assert record(row, "dialogues", columns) == {
        "messages": [{"role": "user", "content": "i\n\nc"}, {"role": "assistant", "content": "r"}]
    }
    assert contents(record({**row, "context": " "}, "dialogues", columns)) == [("u", "i"), ("a", "r")]


def test_columns_become_prompts_preferences_and_text():
    made = record({"p": "q", "s": "sys"}, "prompts", {"user": "p", "system": "s"}, {"safety": True})
    assert contents(made) == [("s", "sys"), ("u", "q")] and made["safety"] is True
    made = record({"q": "q", "x": "1", "y": "2"}, "preferences", {"user": "q", "chosen": "x", "rejected": "y"})
    assert (contents(made), made["chosen"], made["rejected"]) == ([("u", "q")], "1", "2")
    assert record({"body": "t", "title": "x"}, "text", {"text": "body"}) == {"text": "t"}


@pytest.mark.parametrize(
    ("safe", "label"),
    [
        ((True, False), "chosen_safe"),
        ((True, True), "both_safe"),
        ((False, False), "both_unsafe"),
        ((False, True), "rejected_safe"),  # which records.check_record refuses
    ],
)
def test_two_safety_flags_become_one_label(safe, label):
    row = {"chosen_safe": safe[0], "rejected_safe": safe[1]}
    assert record(row, "preferences") == {"safety_label": label}


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="there is no field instruction; there are prompt"):
        record({"prompt": "x"}, "prompts", {"user": "instruction"})


def test_defaults_fill_missing_fields():
    defaults = {"rating": "better"}
    assert record({"rating": None}, "raw", defaults=defaults) == defaults
    assert record({"rating": "slightly_better"}, "raw", defaults=defaults) == {"rating": "slightly_better"}


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="unknown format 'alpacca'; choose one of text"):
        kind_of("alpacca")


def test_turns_are_merged_by_role():
    merged = merge_turns([("user", " a "), ("user", "b"), ("assistant", "c"), ("assistant", "")])
    assert merged == [{"role": "user", "content": "a\n\nb"}, {"role": "assistant", "content": "c"}]
