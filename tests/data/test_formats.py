"""Rows of common formats become the project's records."""

import pytest

from llama2_jax.data.formats import check_columns, kind_of, to_record


def record(row, format_name, columns=(), defaults=()):
    return to_record(row, format_name, dict(columns), dict(defaults))


def contents(made):
    return [(message["role"][0], message["content"]) for message in made["messages"]]


def test_alpaca():
    made = record({"instruction": "i", "input": "", "output": "o", "id": 7}, "alpaca")
    assert contents(made) == [("u", "i"), ("a", "o")] and made["id"] == 7
    made = record({"instruction": "i", "input": "x", "output": "o", "history": [["h", "g"]], "system": "s"}, "alpaca")
    assert contents(made) == [("s", "s"), ("u", "h"), ("a", "g"), ("u", "i\n\nx"), ("a", "o")]


def test_self_instruct():
    """Its seed tasks; the first instance is read, as by Alpaca."""
    instances = [{"input": "x", "output": "o"}, {"input": "y", "output": "p"}]
    made = record({"id": "seed_task_0", "instruction": "i", "instances": instances}, "self_instruct")
    assert contents(made) == [("u", "i\n\nx"), ("a", "o")] and made["id"] == "seed_task_0"
    assert made["messages"][0]["input"] == "x"
    for wrong, message in (
        ([], "field instances is of type list; wanted a list that is not empty"),
        (["o"], "field instances, item 0, is 'o'; wanted {input, output}"),
        ([{"input": "x"}], "field instances, item 0: there is no field output; there are input"),
    ):
        with pytest.raises(ValueError, match=message):
            record({"instruction": "i", "instances": wrong}, "self_instruct")


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
            "conversations, item 0: from is 'bing'; wanted one of system",
        ),
        ({"conversations": None}, "sharegpt", "conversations is of type NoneType; wanted a list"),
        ({"conversations": [{"from": "human"}]}, "sharegpt", "conversations, item 0, value is of type NoneType"),
        ({"conversations": [{"from": ["human"], "value": "x"}]}, "sharegpt", r"item 0: from is \['human'\]"),
        ({"conversations": ["x"]}, "sharegpt", "conversations, item 0 is 'x'; wanted {from, value}"),
        ({"instruction": "i", "input": ["x"], "output": "o"}, "alpaca", "field input is of type list"),
        ({"instruction": "i", "output": "o", "system": 0}, "alpaca", "field system is of type int"),
        ({"instruction": "i", "output": "o", "history": {"h": "g"}}, "alpaca", "field history is of type dict"),
        ({"instruction": "i", "output": "o", "history": [["h", 3]]}, "alpaca", "field history, item 0"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "openai_chat", "messages, item 0: role is 'tool'"),
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


@pytest.mark.parametrize(
    ("row", "format_name"),
    [
        ({"instruction": "i", "output": "o"}, "alpaca"),
        ({"conversations": [{"from": "human", "value": "i"}, {"from": "gpt", "value": "o"}]}, "sharegpt"),
        ({"messages": [{"role": "user", "content": "i"}, {"role": "assistant", "content": "o"}]}, "openai_chat"),
        ({"messages": [{"role": "user", "content": "i"}, {"role": "assistant", "content": "o"}]}, "dialogues"),
        ({"messages": [{"role": "user", "content": "i"}]}, "prompts"),
        ({"user": "i", "assistant": "o"}, "dialogues"),
        ({"chosen": "\n\nHuman: i\n\nAssistant: o", "rejected": "\n\nHuman: i\n\nAssistant: p"}, "hh_rlhf"),
    ],
)
def test_a_system_prompt_beside_the_turns_comes_first(row, format_name):
    made = record({**row, "system": "s"}, format_name)
    assert contents(made)[:2] == [("s", "s"), ("u", "i")] and "system" not in made
    for absent in (None, ""):
        assert contents(record({**row, "system": absent}, format_name))[0] == ("u", "i")
    with pytest.raises(ValueError, match=r"field system is of type list, not a string: \['s'\]"):
        record({**row, "system": ["s"]}, format_name)


def test_an_answer_of_weight_0_is_marked():
    turns = [("user", "2+2?"), ("assistant", "5"), ("user", "no"), ("assistant", "4")]

    def weights(form, role, content, conversation, flag, values):
        marked = [
            {role: speaker, content: text, **({flag: value} if value is not None else {})}
            for (speaker, text), value in zip(turns, values, strict=True)
        ]
        made = record({conversation: marked}, form)["messages"]
        assert [message["content"] for message in made] == ["2+2?", "5", "no", "4"]
        return [{name: value for name, value in message.items() if name not in ("role", "content")} for message in made]

    marked = [{}, {"weight": 0}, {}, {}]
    for form in (("openai_chat", "role", "content", "messages"), ("dialogues", "role", "content", "messages"),
                 ("sharegpt", "from", "value", "conversations")):  # fmt: skip
        assert weights(*form, "weight", (None, 0, None, 1)) == marked
        assert weights(*form, "weight", (0, 0.0, 0, 1.0)) == marked
        assert weights(*form, "train", (False, False, None, True)) == marked
        assert weights(*form, "loss", (None, False, False, None)) == marked
        assert weights(*form, "weight", (None, None, None, None)) == [{}] * 4
        for flag, value in (("weight", 0.5), ("weight", "0"), ("train", [1]), ("loss", 2)):
            with pytest.raises(ValueError, match=f"1: field {flag} is .*; wanted 1 to train on the turn, or 0"):
                weights(*form, flag, (None, value, None, None))
        with pytest.raises(ValueError, match="0: field weight is 1, but only an assistant's turn is trained on"):
            weights(*form, "weight", (1, 1, None, None))


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "Bob"), ("tool_calls", [{"id": "1"}]), ("function_call", {"name": "f"}), ("refusal", "I cannot"),
     ("images", ["x.png"]), ("mask", False), ("reasoning_content", "so")],
)  # fmt: skip
def test_what_a_message_cannot_say_is_refused(field, value):
    for form, row in (
        ("openai_chat", {"messages": [{"role": "user", "content": "i"}, {"role": "assistant", "content": "o"}]}),
        ("dialogues", {"messages": [{"role": "user", "content": "i"}, {"role": "assistant", "content": "o"}]}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "i"}, {"from": "gpt", "value": "o"}]}),
    ):
        (turns,) = row.values()
        good = record(row, form)["messages"]
        turns[1][field] = None
        assert record(row, form)["messages"][1]["content"] == good[1]["content"]
        turns[1][field] = value
        with pytest.raises(ValueError, match=f"1: field {field} is .*; the chat format has no place for it"):
            record(row, form)


@pytest.mark.parametrize(
    "form", ["alpaca", "sharegpt", "openai_chat", "hh_rlhf", "dialogues", "prompts", "preferences"]
)
@pytest.mark.parametrize(("field", "value"), [("tools", [{"type": "function"}]), ("image", "x.png"), ("weight", 0.5)])
def test_what_a_conversation_cannot_have_is_refused(form, field, value):
    with pytest.raises(ValueError, match=f"field {field} is .*; the chat format has no place for it"):
        record({field: value}, form)


def test_a_call_of_a_tool_is_named_and_not_its_missing_content():
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    with pytest.raises(ValueError, match="messages, item 1: field tool_calls is"):
        record({"messages": [{"role": "user", "content": "u"}, call]}, "openai_chat")


def test_pictures_in_a_content_are_refused():
    for part in ({"type": "image_url", "image_url": {"url": "x"}}, {"type": "image_url", "text": "x"}, "text", 3, None):
        with pytest.raises(ValueError, match="messages, item 0, content has parts that are not text: part 1 is"):
            record({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]}, "openai_chat")


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


@pytest.mark.parametrize(
    ("form", "columns", "defaults", "rows", "wanted"),
    [
        ("dialogues", {"user": "q", "context": "p", "assistant": "a"}, {"context": ""},
         [{"q": "i", "p": "x", "a": "o"}, {"q": "i", "a": "o"}, {"q": "i", "p": None, "a": "o"}],
         [[("u", "i\n\nx"), ("a", "o")], [("u", "i"), ("a", "o")], [("u", "i"), ("a", "o")]]),
        ("dialogues", {"user": "q", "assistant": "a", "system": "s"}, {"system": "be kind"},
         [{"q": "i", "a": "o", "s": "x"}, {"q": "i", "a": "o"}],
         [[("s", "x"), ("u", "i"), ("a", "o")], [("s", "be kind"), ("u", "i"), ("a", "o")]]),
        ("alpaca", {"instruction": "q", "input": "p", "output": "a"}, {"input": "y"},
         [{"q": "i", "p": "x", "a": "o"}, {"q": "i", "a": "o"}],
         [[("u", "i\n\nx"), ("a", "o")], [("u", "i\n\ny"), ("a", "o")]]),
        ("sharegpt", {"conversations": "c", "system": "s"}, {"system": "be kind"},
         [{"c": [{"from": "human", "value": "i"}, {"from": "gpt", "value": "o"}]}],
         [[("s", "be kind"), ("u", "i"), ("a", "o")]]),
        ("openai_chat", {"messages": "m", "system": "s"}, {"system": "be kind"},
         [{"m": [{"role": "user", "content": "i"}, {"role": "assistant", "content": "o"}]}],
         [[("s", "be kind"), ("u", "i"), ("a", "o")]]),
        ("prompts", {"user": "q", "system": "s"}, {"system": "be kind"}, [{"q": "i"}],
         [[("s", "be kind"), ("u", "i")]]),
    ],
)  # fmt: skip
def test_a_default_fills_a_column_that_a_row_lacks(form, columns, defaults, rows, wanted):
    assert [contents(record(row, form, columns, defaults)) for row in rows] == wanted


def test_a_default_fills_a_column_of_text_and_of_comparisons():
    assert record({}, "text", {"text": "t", "source": "s"}, {"text": "x", "source": "y"}) == {
        "text": "x",
        "source": "y",
    }
    columns = {"user": "q", "chosen": "c", "rejected": "r", "domain": "d"}
    made = record({"q": "i", "c": "1", "r": "2"}, "preferences", columns, {"domain": "safety"})
    assert made["domain"] == "safety"


@pytest.mark.parametrize(
    ("form", "columns", "unused"),
    [("alpaca", ("user", "assistant"), "assistant, user"), ("text", ("text", "user"), "user"),
     ("prompts", ("user", "assistant"), "assistant"), ("dialogues", ("messages", "context"), "context")],
)  # fmt: skip
def test_columns_that_a_format_does_not_read_are_refused(form, columns, unused):
    with pytest.raises(ValueError, match=f"columns name {unused}, which the format {form} does not read"):
        check_columns(form, dict.fromkeys(columns, "x"))
    check_columns("dialogues", {"user": "x", "context": "y", "assistant": "z", "category": "w"})


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
