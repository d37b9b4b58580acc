"""Conversion of file rows to the project's records: its own fields, a mapping of columns, and common formats.

| format      | fields of a row                                                     | kind        |
|-------------|---------------------------------------------------------------------|-------------|
| alpaca      | `instruction`, `output`; optional `input`, `system`, `history`      | dialogues   |
| sharegpt    | `conversations` of {`from`, `value`}; optional `system`             | dialogues   |
| openai_chat | `messages` of {`role`, `content`}, content a string or text parts   | dialogues   |
| hh_rlhf     | `chosen`, `rejected`: whole dialogues "\\n\\nHuman: ..\\n\\nAssistant: .." | preferences |

Consecutive turns of one speaker are merged: HH-RLHF and ShareGPT have them, and the chat format cannot represent them.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from llama2_jax.data.records import KINDS, SAFETY_LABELS

_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
}
_OPENAI_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_HH_RLHF_ROLES = {"Human": "user", "Assistant": "assistant"}


def kind_of(format_name: str) -> str:
    """Returns the kind of record that a format has.

    Raises:
      ValueError: if the format is unknown.
    """
    if format_name in KINDS:
        return format_name
    if format_name not in _FORMATS:
        raise ValueError(f"unknown format {format_name!r}; choose one of {', '.join((*KINDS, *_FORMATS))}")
    return _FORMATS[format_name][0]


def to_record(row: Mapping, format_name: str, columns: Mapping[str, str], defaults: Mapping[str, object]) -> dict:
    """Converts a row to a record of its format's kind (unchecked: records.check_record checks it).

    Args:
      row: the fields in the file.
      format_name: a kind (the row has the project's own fields, also by way of `columns`), or one of the formats above.
      columns: for each of our fields its column in the file; columns not named here are then left out. In addition to a
        kind's own fields: `user`, `context`, `system` and, for dialogues, `assistant`, which become messages; for
        preferences `chosen_safe` and `rejected_safe`, which become the safety label.
      defaults: fields for rows that lack them (or have null).

    Raises:
      ValueError: if a field is missing or wrong; the message names it.
    """
    kind = kind_of(format_name)
    fields = {field: _required(row, column) for field, column in columns.items()} if columns else dict(row)
    for name, value in defaults.items():
        if fields.get(name) is None:
            fields[name] = value
    if format_name in _FORMATS:
        return _FORMATS[format_name][1](fields)
    if kind not in ("text", "raw") and "messages" not in fields and "user" in fields:
        fields = _with_messages(fields, kind)
    if kind == "preferences" and "safety_label" not in fields and "chosen_safe" in fields:
        fields = _with_safety_label(fields)
    return fields


def merge_turns(turns: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Returns messages from (role, content), with consecutive ones of one role joined by an empty line."""
    messages: list[dict[str, str]] = []
    for role, content in turns:
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = "\n\n".join(part for part in (messages[-1]["content"], content.strip()) if part)
        else:
            messages.append({"role": role, "content": content.strip()})
    return messages


def _alpaca(row: dict) -> dict:
    fields = _without(row, "instruction", "input", "output", "system", "history")
    turns = [("system", row["system"])] if row.get("system") else []
    for index, turn in enumerate(_list(row, "history") if row.get("history") else ()):
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            raise ValueError(f"field history, item {index}: {turn!r}; wanted [instruction, answer]")
        turns += [("user", turn[0]), ("assistant", turn[1])]
    turns.append(("user", _prompt(_required(row, "instruction"), row.get("input"))))
    turns.append(("assistant", _required(row, "output")))
    return {**fields, "messages": [{"role": role, "content": content} for role, content in turns]}


def _sharegpt(row: dict) -> dict:
    turns = [("system", row["system"])] if row.get("system") else []
    for index, turn in enumerate(_list(row, "conversations")):
        role, content = _role(turn, "from", _SHAREGPT_ROLES, index), turn.get("value")
        turns.append((role, _string(content, f"conversations, item {index}, value")))
    return {**_without(row, "conversations", "system"), "messages": merge_turns(turns)}


def _openai_chat(row: dict) -> dict:
    turns = []
    for index, turn in enumerate(_list(row, "messages")):
        role, content = _role(turn, "role", _OPENAI_ROLES, index), turn.get("content")
        if isinstance(content, list):
            if any(not isinstance(part, dict) or not isinstance(part.get("text"), str) for part in content):
                raise ValueError(f"messages, item {index}: content has parts that are not text")
            content = "".join(part["text"] for part in content)
        turns.append((role, _string(content, f"messages, item {index}, content")))
    return {**row, "messages": merge_turns(turns)}


def _hh_rlhf(row: dict) -> dict:
    chosen, rejected = (_hh_rlhf_dialogue(row, name) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("chosen and rejected differ before their last answers: they must answer the same prompt")
    return {**row, "messages": chosen[:-1], "chosen": chosen[-1]["content"], "rejected": rejected[-1]["content"]}


def _hh_rlhf_dialogue(row: dict, field: str) -> list[dict[str, str]]:
    text = _string(_required(row, field), field)
    before, *parts = re.split(r"(?:\A|\n\n)(Human|Assistant):", text)
    if before.strip() or not parts:
        raise ValueError(f'field {field} begins {text[:40]!r}; wanted "\\n\\nHuman: .."')
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    for number, (speaker, content) in enumerate(pairs, 1):
        if not content.strip():
            raise ValueError(f"field {field}: turn {number} of {len(pairs)} ({speaker}) is empty")
    if pairs[-1][0] != "Assistant":
        raise ValueError(f"field {field} ends in a turn of {pairs[-1][0]}; wanted the Assistant's answer")
    return merge_turns((_HH_RLHF_ROLES[speaker], content) for speaker, content in pairs)


_FORMATS: Mapping[str, tuple[str, Callable[[dict], dict]]] = {
    "alpaca": ("dialogues", _alpaca),
    "sharegpt": ("dialogues", _sharegpt),
    "openai_chat": ("dialogues", _openai_chat),
    "hh_rlhf": ("preferences", _hh_rlhf),
}


def _with_messages(fields: dict, kind: str) -> dict:
    """Converts single columns to messages: system, user with its context, and for dialogues the assistant's."""
    messages = [{"role": "system", "content": fields["system"]}] if fields.get("system") else []
    messages.append({"role": "user", "content": _prompt(fields["user"], fields.get("context"))})
    used = ("system", "user", "context")
    if kind == "dialogues":
        messages.append({"role": "assistant", "content": _required(fields, "assistant")})
        used = (*used, "assistant")
    return {**_without(fields, *used), "messages": messages}


def _with_safety_label(fields: dict) -> dict:
    safe = _required(fields, "chosen_safe"), _required(fields, "rejected_safe")
    if not all(isinstance(flag, bool) for flag in safe):
        raise ValueError(f"fields chosen_safe and rejected_safe are {safe}; wanted true or false")
    label = SAFETY_LABELS.get(safe, "rejected_safe")
    return {**_without(fields, "chosen_safe", "rejected_safe"), "safety_label": label}


def _prompt(instruction: object, context: object) -> object:
    """Returns an instruction, with its context (if any) below it."""
    if isinstance(context, str) and context.strip() and isinstance(instruction, str):
        return f"{instruction.strip()}\n\n{context.strip()}"
    return instruction


def _role(turn: object, field: str, roles: Mapping[str, str], index: int) -> str:
    if not isinstance(turn, Mapping) or turn.get(field) not in roles:
        found = turn.get(field) if isinstance(turn, Mapping) else turn
        raise ValueError(f"turn {index}: {field} is {found!r}; wanted one of {', '.join(roles)}")
    return roles[turn[field]]


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is of type {type(value).__name__}, not a string")
    return value


def _list(row: Mapping, field: str) -> list:
    value = _required(row, field)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"field {field} is of type {type(value).__name__}; wanted a list that is not empty")
    return list(value)


def _required(row: Mapping, field: str) -> object:
    if field not in row:
        raise ValueError(f"there is no field {field}; there are {', '.join(map(str, row)) or 'none'}")
    return row[field]


def _without(row: Mapping, *names: str) -> dict:
    return {name: value for name, value in row.items() if name not in names}
