"""What a record becomes: completed where its row leaves something out, or converted to another kind."""

import json
from collections.abc import Mapping

from llama2_jax.data.records import ANSWERS, KINDS, messages_of, required

# What a record has of a field that its row leaves out; None: the field stays out.
_OPTIONAL = {
    "dialogues": {"loss": None},
    "prompts": {"safety": False, "category": "", "domain": None},
    "preferences": {"rating": None, "safety_label": None, "chosen_tokens": None, "rejected_tokens": None},
    "rankings": {"domain": None, "answers_tokens": None},
    "samples": {"category": "", "response_tokens": None},
    "preprompts": {"category": ""},
    "user_turns": {"instruction": None, "terse": None, "applies_to": None},
}


def complete(record: Mapping, kind: str) -> dict:
    """Returns a record with what its row may leave out."""
    optional = _OPTIONAL.get(kind, {})
    if kind in ("instructions", "user_turns") and record.get("instruction") is not None:
        optional = {"terse": record["instruction"]}
    absent = {name: value for name, value in optional.items() if record.get(name) is None}
    kept = {name: value for name, value in record.items() if name not in absent}
    return kept | {name: value for name, value in absent.items() if value is not None}


def convert(record: dict, given: str, wanted: str) -> dict:
    """Converts a record to another kind: dialogues to prompts, answered prompts to prompts or dialogues.

    Raises:
      ValueError: if there is no such conversion, or the record is not of the given kind.
    """
    if given in (wanted, "raw") or wanted == "raw":
        return record
    if wanted not in readable_as(given):
        raise ValueError(f"records of kind {given!r} cannot be read as {wanted!r}")
    if wanted == "user_turns":
        return record
    messages = messages_of(record)
    if given == "dialogues":
        if not messages or messages[-1].get("role") != "assistant":
            raise ValueError("field messages does not end in an assistant's, which a prompt would leave out")
        return {name: value for name, value in record.items() if name != "loss"} | {"messages": messages[:-1]}
    dropped = {name for field in ANSWERS[given] for name in (field, f"{field}_tokens")}
    converted = {name: value for name, value in record.items() if name not in dropped}
    if wanted == "dialogues":
        converted["messages"] = [*messages, _answer_message(record, ANSWERS[given][0])]
    return converted


def readable_as(given: str) -> tuple[str, ...]:
    """Returns the kinds that records of a kind can be converted to."""
    if given == "raw":
        return KINDS
    if given in ANSWERS:
        return ("prompts", "dialogues", "user_turns")
    return {"dialogues": ("prompts", "user_turns"), "prompts": ("user_turns",)}.get(given, ())


def opening(record: Mapping) -> str:
    """Returns the opening of a record: a conversation's first user message, a text, or else all its fields."""
    messages = record.get("messages")
    for message in messages if isinstance(messages, list | tuple) else ():
        if isinstance(message, Mapping) and message.get("role") == "user" and isinstance(message.get("content"), str):
            return message["content"]
    text = record.get("text")
    return text if isinstance(text, str) else json.dumps(record, sort_keys=True, default=str)


def _answer_message(record: Mapping, field: str) -> dict:
    tokens = {"tokens": record[f"{field}_tokens"]} if f"{field}_tokens" in record else {}
    return {"role": "assistant", "content": required(record, field), **tokens}
