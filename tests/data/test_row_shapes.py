"""Rows of any shape, in any format: a record that can be used, or a bad line that names file, line and field."""

import copy
import json

import pytest

from llama2_jax.data.bad_line import BadLine
from llama2_jax.data.sources import read_and_report
from llama2_jax.text.dialogue import encode_dialogue, encode_prompt
from tests.smallest import Letters

MESSAGES = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "u"},
    {"role": "assistant", "content": "a", "weight": 0},
    {"role": "user", "content": "v"},
    {"role": "assistant", "content": "b", "tokens": [98, 2]},
]
ANSWERED = {"messages": MESSAGES[:4], "category": "c"}
GOOD = {
    "text": {"text": "t"},
    "dialogues": {"messages": MESSAGES, "loss": "answers"},
    "prompts": {**ANSWERED, "safety": True, "domain": "safety"},
    "preferences": {**ANSWERED, "chosen": "x", "rejected": "y", "domain": "safety", "rating": "better",
                    "safety_label": "both_safe", "chosen_tokens": [120, 2], "rejected_tokens": [121]},
    "samples": {**ANSWERED, "response": "x", "response_tokens": [120, 2]},
    "alpaca": {"instruction": "i", "input": "x", "output": "o", "system": "s", "history": [["h", "g"]]},
    "sharegpt": {"system": "s", "conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]},
    "openai_chat": {"messages": [{"role": "user", "content": [{"type": "text", "text": "u"}], "name": ""},
                                 {"role": "assistant", "content": "a", "weight": 1, "tool_calls": []}], "tools": []},
    "hh_rlhf": {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c",
                "domain": "helpfulness"},
    "instructions": {"instruction": "Be brief.", "terse": "Brief."},
    "preprompts": {"preprompt": "You are careful.", "category": "crime"},
    "user_turns": {"turns": ["a", "b"], "instruction": "Be brief.", "terse": "Brief.", "applies_to": [2]},
    "instructed": {"turns": ["a", "b"], "messages": [{"role": "system", "content": "Be brief."}]},
}  # fmt: skip
WRONG = (
    None,
    3,
    -1.5,
    True,
    [],
    [1],
    [None],
    [[]],
    {},
    {"a": 1},
    "",
    " ",
    "x",
    [{"role": "user"}],
    "hi \ud83d",
    "x\0y",
)

# What a message may say in place of a field's name: which message it is, or what is wrong with all of them.
SAID_OF = {
    "messages": ("message", "roles"),
    "conversations": ("message", "roles"),
    "role": ("messages",),
    "text": ("content",),
}


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Thousands of lines are skipped: saying so takes longer than reading them."""
    caplog.set_level("ERROR", logger="absl")


def places(value, path=()):
    """The paths of all values in a row."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from places(item, (*path, name))


def changed(row, path, value=...):
    """The row with another value at a path, or without it."""
    row = copy.deepcopy(row)
    holder = row
    for name in path[:-1]:
        holder = holder[name]
    if value is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return row


def field(path):
    return next(name for name in reversed(path) if isinstance(name, str))


def use(record, form):
    """What stages do with a record: it may not fail any more."""
    if "response_tokens" in record or "chosen_tokens" in record or form in ("prompts", "preferences", "hh_rlhf"):
        encode_prompt(Letters(), record["messages"])
    elif form in ("dialogues", "alpaca", "sharegpt", "openai_chat"):
        assert encode_dialogue(Letters(), record["messages"], record.get("loss", "answers")).loss_mask.any()
    if form == "prompts":
        assert isinstance(record["safety"], bool) and isinstance(record["category"], str)
    if form in ("instructions", "user_turns") and "instruction" in record:
        assert record["instruction"] and record["terse"]


@pytest.mark.parametrize("form", GOOD)
def test_a_wrong_value_in_any_field_is_a_bad_line(tmp_path, form):
    rows = [changed(GOOD[form], path, value) for path in places(GOOD[form]) for value in (..., *WRONG)]
    named = [field(path) for path in places(GOOD[form]) for _ in (..., *WRONG)]
    (tmp_path / "x.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in [GOOD[form], *rows]))
    reading = read_and_report(
        {"path": "x.jsonl", "format": form, "on_bad_line": "skip", "part": (0.0, 1.0)}, tmp_path, 0, "s"
    )
    assert len(reading.records) + len(reading.skipped) == len(rows) + 1
    for record in reading.records:
        use(record, form)
    for bad in reading.skipped:
        number = int(bad.place.rpartition(":")[2])
        assert isinstance(bad, BadLine) and bad.place == f"{tmp_path}/x.jsonl:{number}"
        row, name = rows[number - 2], named[number - 2]
        assert any(one in bad.reason for one in (name, *SAID_OF.get(name, ()))), (row, name, bad.reason)
    # Of each field, most of these values are wrong.
    assert len(reading.skipped) > len(rows) / 2


@pytest.mark.parametrize("form", [*GOOD, "raw"])
def test_what_is_no_object_is_a_bad_line(tmp_path, form):
    content = [
        "[1, 2]",
        "null",
        "3",
        '"x"',
        "[]",
        "{",
        '{"a": "\\ud83d"}',
        "[" * 100_000,
        '{"a": NaN',
        '{"a": 1, "a": 2}',
    ]
    good = json.dumps(GOOD.get(form, {"any": 1}))
    (tmp_path / "x.jsonl").write_text("\n".join([good, *content, good]))
    reading = read_and_report({"path": "x.jsonl", "format": form, "on_bad_line": "skip"}, tmp_path, 0)
    assert len(reading.records) == 2
    assert [bad.place for bad in reading.skipped] == [f"{tmp_path}/x.jsonl:{n}" for n in range(2, len(content) + 2)]
    with pytest.raises(BadLine, match=r"x\.jsonl:2: a list, wanted an object"):
        read_and_report({"path": "x.jsonl", "format": form}, tmp_path, 0)


@pytest.mark.parametrize("kind", ["prompts", "dialogues", "user_turns"])
@pytest.mark.parametrize(
    "form", ["dialogues", "preferences", "samples", "alpaca", "sharegpt", "openai_chat", "hh_rlhf"]
)
def test_a_wrong_value_is_a_bad_line_where_a_record_is_converted_too(tmp_path, form, kind):
    rows = [changed(GOOD[form], path, value) for path in places(GOOD[form]) for value in (..., *WRONG)]
    (tmp_path / "x.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in [GOOD[form], *rows]))
    source = {"path": "x.jsonl", "format": form, "kind": kind, "on_bad_line": "skip", "part": (0.0, 0.99999)}
    reading = read_and_report(source, tmp_path, 0)
    assert reading.records and reading.skipped
    for record in reading.records:
        if kind == "prompts":
            encode_prompt(Letters(), record["messages"])
        if kind == "dialogues":
            assert encode_dialogue(Letters(), record["messages"]).loss_mask.any()


def test_a_list_of_anything_but_objects_is_bad_item_by_item(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([GOOD["alpaca"], 3, None, [], "x", GOOD["alpaca"]]))
    reading = read_and_report({"path": "x.json", "format": "alpaca", "on_bad_line": "skip"}, tmp_path, 0)
    assert len(reading.records) == 2
    assert [bad.place.rpartition(":")[2] for bad in reading.skipped] == ["item 1", "item 2", "item 3", "item 4"]
