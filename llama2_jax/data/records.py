"""The project's kinds of records, and their check.

| kind        | fields                                                                                        |
|-------------|-----------------------------------------------------------------------------------------------|
| text        | `text`                                                                                        |
| dialogues   | `messages`, the last one an assistant's                                                       |
| prompts     | `messages`, the last one the user's; optional `safety` (true if an answer may be unsafe)      |
| preferences | `messages` as in prompts, `chosen`, `rejected`, `domain`; optional `rating`, `safety_label`   |
| samples     | `messages` as in prompts, `response`                                                          |
| raw         | any; for a single stage, which checks what it needs                                           |

Further fields are kept. A sampled answer may carry its ids: `response_tokens`, `chosen_tokens`, `rejected_tokens`, or
`tokens` in an assistant's message.
"""

import json
from collections.abc import Mapping

from llama2_jax.text.dialogue import check_messages

KINDS = ("text", "dialogues", "prompts", "preferences", "samples", "raw")
RATINGS = ("significantly_better", "better", "slightly_better", "negligibly_better")
DOMAINS = ("helpfulness", "safety")
# By whether the chosen and the rejected answer are safe (section 3.2.1). (False, True) is excluded.
SAFETY_LABELS = {(True, False): "chosen_safe", (True, True): "both_safe", (False, False): "both_unsafe"}

_ANSWERS = {"preferences": ("chosen", "rejected"), "samples": ("response",)}


def check_record(record: Mapping, kind: str) -> None:
    """Checks that a record is of its kind.

    Raises:
      ValueError: if it is not; with the field, what was found and what was wanted.
    """
    if kind == "raw":
        return
    if kind == "text":
        _check_text(record, "text")
        return
    _check_conversation(record, ends_in="assistant" if kind == "dialogues" else "user")
    for field in _ANSWERS.get(kind, ()):
        _check_answer(record, field)
    if kind == "preferences":
        _check_comparison(record)
    if kind == "prompts" and not isinstance(record.get("safety", False), bool):
        raise ValueError(f"field safety is {record['safety']!r}; wanted true or false")


def convert(record: dict, given: str, wanted: str) -> dict:
    """Converts a record to another kind: dialogues to prompts, answered prompts to prompts or dialogues.

    Raises:
      ValueError: if there is no such conversion.
    """
    if given == wanted:
        return record
    if wanted == "prompts" and given == "dialogues":
        return {**record, "messages": _field(record, "messages")[:-1]}
    if given in _ANSWERS and wanted in ("prompts", "dialogues"):
        dropped = {name for field in _ANSWERS[given] for name in (field, f"{field}_tokens")}
        converted = {name: value for name, value in record.items() if name not in dropped}
        if wanted == "dialogues":
            converted["messages"] = [*_field(record, "messages"), _answer_message(record, _ANSWERS[given][0])]
        return converted
    raise ValueError(f"records of kind {given!r} cannot be read as {wanted!r}")


def opening(record: Mapping) -> str:
    """Returns the opening of a record: a conversation's first user message, a text, or else all its fields."""
    if "messages" in record:
        return next(message["content"] for message in record["messages"] if message["role"] == "user")
    return record["text"] if "text" in record else json.dumps(record, sort_keys=True, default=str)


def _answer_message(record: Mapping, field: str) -> dict:
    tokens = {"tokens": record[f"{field}_tokens"]} if f"{field}_tokens" in record else {}
    return {"role": "assistant", "content": _field(record, field), **tokens}


def _check_conversation(record: Mapping, ends_in: str) -> None:
    messages = _field(record, "messages")
    if not isinstance(messages, list | tuple) or not all(isinstance(message, Mapping) for message in messages):
        raise ValueError(f"field messages is {_shown(messages)}; wanted a list of {{role, content}}")
    check_messages(messages)
    for index, message in enumerate(messages):
        if message["role"] != "system" and not message["content"].strip() and "tokens" not in message:
            raise ValueError(f"message {index} ({message['role']}) is empty")
    if messages[-1]["role"] != ends_in:
        raise ValueError(f"the last message is of {messages[-1]['role']!r}; wanted {ends_in!r}")


def _check_answer(record: Mapping, field: str) -> None:
    if f"{field}_tokens" in record:
        if not isinstance(_field(record, field), str):
            raise ValueError(f"field {field} is {_shown(record[field])}; wanted a string")
        return
    _check_text(record, field)
    # An answer is encoded as an assistant's message, so it may not contain special tags either.
    check_messages([{"role": "user", "content": ""}, {"role": "assistant", "content": record[field]}])


def _check_comparison(record: Mapping) -> None:
    _check_choice(record, "domain", DOMAINS)
    if "rating" in record:
        _check_choice(record, "rating", RATINGS)
    if record.get("safety_label") == "rejected_safe":
        raise ValueError(
            "field safety_label is 'rejected_safe': the chosen answer is unsafe and the rejected one safe; such "
            "comparisons are excluded (section 3.2.1): leave the line out"
        )
    if "safety_label" in record:
        _check_choice(record, "safety_label", tuple(SAFETY_LABELS.values()))
    tokens = record.get("chosen_tokens"), record.get("rejected_tokens")
    if record["chosen"] == record["rejected"] and (None in tokens or list(tokens[0]) == list(tokens[1])):
        raise ValueError("chosen and rejected are the same answer: there is nothing to prefer")


def _check_choice(record: Mapping, field: str, choices: tuple[str, ...]) -> None:
    value = _field(record, field)
    if value not in choices:
        raise ValueError(f"field {field} is {_shown(value)}; wanted one of {', '.join(choices)}")


def _check_text(record: Mapping, field: str) -> None:
    value = _field(record, field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"field {field} is {_shown(value)}; wanted a string that is not empty")


def _field(record: Mapping, field: str) -> object:
    if field not in record:
        raise ValueError(
            f"there is no field {field}; there are {', '.join(map(str, record)) or 'none'}. Name its column in the "
            "source's columns, or give it in the source's defaults"
        )
    return record[field]


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}.."
