"""The date of a question becomes a system message, in every format; what contradicts itself is a bad line."""

import datetime
import json

import pytest

from llama2_jax.data.dated import date_message, with_date
from llama2_jax.data.files import BadLine
from llama2_jax.data.formats import to_record
from llama2_jax.data.sources import read

TURNS = [{"role": "user", "content": "Who won?"}, {"role": "assistant", "content": "It has not happened yet."}]
DATES = {"query_date": "2021-05-03", "event_date": "2022-12-18"}


def test_the_date_is_a_system_message_and_the_years_stay():
    made = with_date({"messages": TURNS, **DATES, "not_yet": True, "id": 7}, "dialogues")
    assert made["messages"] == [{"role": "system", "content": "Today is 2021-05-03."}, *TURNS]
    assert {name: value for name, value in made.items() if name != "messages"} == {
        "query_year": 2021, "event_year": 2022, "not_yet": True, "id": 7,
    }  # fmt: skip
    assert with_date(made, "dialogues") == made, "what is read again is dated once"
    assert date_message(datetime.date(852, 1, 1)) == "Today is 0852-01-01."


def test_a_record_without_dates_stays_as_it_is():
    record = {"messages": TURNS, "query_date": None, "event_date": ""}
    assert with_date(record, "dialogues") == {"messages": TURNS}


def test_a_system_message_of_its_own_follows():
    told = [{"role": "system", "content": "Be brief."}, *TURNS]
    made = with_date({"messages": told, "query_date": "2023-01-31"}, "dialogues")
    assert [message["content"] for message in made["messages"]] == [
        "Today is 2023-01-31.\n\nBe brief.", *(turn["content"] for turn in TURNS),
    ]  # fmt: skip


def test_a_prompt_needs_no_mark_since_it_has_no_answer():
    assert with_date({"messages": TURNS[:1], **DATES}, "prompts")["event_year"] == 2022


@pytest.mark.parametrize(
    ("row", "format_name", "columns"),
    [
        ({"instruction": "Who won?", "output": "Not yet."}, "alpaca", {}),
        ({"conversations": [{"from": "human", "value": "Who won?"}, {"from": "gpt", "value": "No."}]}, "sharegpt", {}),
        ({"messages": TURNS}, "openai_chat", {}),
        ({"messages": TURNS}, "dialogues", {}),
        (
            {"q": "Who won?", "a": "Not yet.", "asked": "2021-05-03"},
            "dialogues",
            {"user": "q", "assistant": "a", "query_date": "asked"},
        ),
    ],
)
def test_in_every_format(row, format_name, columns):
    given = row if columns else {**row, "query_date": "2021-05-03"}
    made = to_record(given, format_name, columns, {})
    assert [message["role"] for message in made["messages"]] == ["system", "user", "assistant"]
    assert made["messages"][0]["content"] == "Today is 2021-05-03."


def test_parquet_has_dates_of_its_own():
    made = with_date({"messages": TURNS, "query_date": datetime.date(2023, 2, 1)}, "dialogues")
    assert made["messages"][0]["content"] == "Today is 2023-02-01."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query_date": "2021-02-30"}, "field query_date is '2021-02-30': day is out of range"),
        ({"query_date": "03/05/2021"}, "field query_date is '03/05/2021'; wanted a date, YYYY-MM-DD"),
        ({"query_date": "2021-W01-1"}, "field query_date is '2021-W01-1'; wanted a date"),
        ({"query_date": 2021}, "field query_date is 2021; wanted a date"),
        ({"query_date": "2021-05-03", "event_date": "soon"}, "field event_date is 'soon'; wanted a date"),
        ({"event_date": "2021-05-03"}, "there is an event_date and no query_date"),
        (DATES, "the question of 2021-05-03 is about an event of 2022-12-18: .* give not_yet: true"),
        ({**DATES, "query_date": "2023-01-01", "not_yet": True}, "not_yet is true, but the dates do not say"),
        ({"query_date": "2023-01-01", "not_yet": True}, "not_yet is true, but the dates do not say"),
        ({**DATES, "not_yet": "yes"}, "field not_yet is 'yes'; wanted true or false"),
    ],
)
def test_a_bad_line_is_named_with_its_place(tmp_path, fields, message):
    rows = [{"messages": TURNS}, {"messages": TURNS, **fields}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadLine, match=rf"x\.jsonl:2: {message}"):
        read({"path": "x.jsonl", "format": "dialogues"}, tmp_path, seed=0)


def test_messages_that_are_none_are_refused_as_ever():
    for messages in ("text", [1]):
        with pytest.raises(ValueError, match="field messages is"):
            to_record({"messages": messages, "query_date": "2021-05-03"}, "dialogues", {}, {})
    with pytest.raises(ValueError, match="there is no field messages"):
        to_record({"query_date": "2021-05-03"}, "dialogues", {}, {})
