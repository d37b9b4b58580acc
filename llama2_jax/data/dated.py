"""Rows with the date of their question and of the event that it is about (section 5.1, temporal perception).

| field        | says                                                                                             |
|--------------|--------------------------------------------------------------------------------------------------|
| `query_date` | when the question was posed, YYYY-MM-DD; it becomes a system message, "Today is 2021-05-03."     |
| `event_date` | the date before which the question makes no sense; only beside a `query_date`                    |
| `not_yet`    | true for a dialogue whose answer says so; only and always where it was posed before the event    |

The record has the years, `query_year` and `event_year`, in place of the dates: what is read again is dated once.
"""

import datetime
import re
from collections.abc import Mapping

from llama2_jax.data.bad_line import shown
from llama2_jax.data.records import messages_of

_FIELDS = ("query_date", "event_date")
# date.fromisoformat reads other forms too, such as weeks.
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def with_date(record: Mapping, kind: str) -> dict:
    """Returns a record of a conversation with its query date as a system message; one without dates as it is.

    Args:
      record: with `messages`; a system message of its own follows the date.
      kind: the record's, of records.CONVERSATIONS. Only dialogues have an answer that `not_yet` can mark.

    Raises:
      ValueError: if a date is none, the event's stands alone, or `not_yet` and the dates contradict each other.
    """
    dates = {name: _date(record, name) for name in _FIELDS if record.get(name) not in (None, "")}
    kept = {name: value for name, value in record.items() if name not in _FIELDS}
    if not dates:
        return kept
    if "query_date" not in dates:
        raise ValueError("there is an event_date and no query_date: the answer depends on both")
    years = {name.replace("date", "year"): date.year for name, date in dates.items()}
    if kind == "dialogues":
        _check_answer(dates, record.get("not_yet"))
    return {**kept, **years, "messages": _told(dates["query_date"], messages_of(record))}


def date_message(date: datetime.date) -> str:
    """Returns what the system message says of the date of a question: "Today is 2021-05-03."."""
    return f"Today is {date.isoformat()}."


def _told(date: datetime.date, messages: list[Mapping]) -> list[Mapping]:
    if messages and messages[0].get("role") == "system":
        first, *others = messages
        return [{**first, "content": f"{date_message(date)}\n\n{first.get('content')}"}, *others]
    return [{"role": "system", "content": date_message(date)}, *messages]


def _check_answer(dates: Mapping[str, datetime.date], not_yet: object) -> None:
    if not_yet not in (None, "", True, False):
        raise ValueError(f"field not_yet is {shown(not_yet)}; wanted true or false")
    early = "event_date" in dates and dates["query_date"] < dates["event_date"]
    if early and not not_yet:
        raise ValueError(
            f"the question of {dates['query_date']} is about an event of {dates['event_date']}: an answer as if it had "
            "happened teaches to see the future. If the answer says that it has not happened yet, give not_yet: true"
        )
    if not_yet and not early:
        raise ValueError("not_yet is true, but the dates do not say that the question was posed before the event")


def _date(record: Mapping, name: str) -> datetime.date:
    value = record[name]
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):  # as Parquet has them
        return value
    try:
        if isinstance(value, str) and _DATE.fullmatch(value):
            return datetime.date.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"field {name} is {shown(value)}: {error}") from error
    raise ValueError(f"field {name} is {shown(value)}; wanted a date, YYYY-MM-DD")
