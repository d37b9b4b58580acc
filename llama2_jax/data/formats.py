"""Conversion of file rows to the project's records: its own fields, a mapping of columns, and common formats.

| format        | fields of a row                                                     | kind        |
|---------------|---------------------------------------------------------------------|-------------|
| alpaca        | `instruction`, `output`; optional `input`, `system`, `history`      | dialogues   |
| self_instruct | `instruction`, `instances` of {`input`, `output`}: the first one    | dialogues   |
| sharegpt      | `conversations` of {`from`, `value`}; optional `system`             | dialogues   |
| openai_chat   | `messages` of {`role`, `content`}, content a string or text parts   | dialogues   |
| hh_rlhf       | `chosen`, `rejected`: whole dialogues "\\n\\nHuman: ..\\n\\nAssistant: .." | preferences |

Consecutive turns of one speaker are merged: HH-RLHF and ShareGPT have them, and the chat format cannot represent them.
A turn's `weight`, `train` or `loss` of 0 or false leaves an answer out of the training (turns.py). A conversation's
`query_date` and `event_date`, in any format, become a system message with the date (dated.py).
"""

import re
from collections.abc import Callable, Mapping

from llama2_jax.data.bad_line import shown
from llama2_jax.data.dated import with_date
from llama2_jax.data.records import CONVERSATIONS, KINDS, SAFETY_LABELS
from llama2_jax.data.turns import merge, message_from, refuse_unsupported, with_weights

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


def check_columns(format_name: str, columns: Mapping[str, str]) -> None:
    """Checks that a source's columns name no field that its format does not read.

    Raises:
      ValueError: with the field.
    """
    kind = kind_of(format_name)
    if kind not in ("text", *CONVERSATIONS):
        return
    unused = set() if kind == "dialogues" else {"assistant"}
    if format_name in _FORMATS or kind == "text" or "messages" in columns:
        unused = {"user", "context", "assistant"}
    if found := sorted(unused & columns.keys()):
        raise ValueError(f"columns name {', '.join(found)}, which the format {format_name} does not read from them")


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
    fields = _columns(row, columns, defaults) if columns else dict(row)
    for name, value in defaults.items():
        if fields.get(name) is None:
            fields[name] = value
    if kind in CONVERSATIONS:
        refuse_unsupported(fields, kind)
    if format_name in _FORMATS:
        return with_date(_FORMATS[format_name][1](fields), kind)
    if kind in CONVERSATIONS:
        fields = with_date(_with_messages(fields, kind), kind)
    if kind == "preferences" and "safety_label" not in fields and "chosen_safe" in fields:
        fields = _with_safety_label(fields)
    return fields


def _columns(row: Mapping, columns: Mapping[str, str], defaults: Mapping[str, object]) -> dict:
    """Returns the fields that have a column; those without one in this row are left to the defaults."""
    for field, column in columns.items():
        if column not in row and field not in defaults:
            raise ValueError(
                f"there is no field {column}; there are {', '.join(map(str, row)) or 'none'}. If rows may lack it, "
                f"give {field} in the source's defaults"
            )
    return {field: row[column] for field, column in columns.items() if column in row}


def _alpaca(row: dict) -> dict:
    fields = _without(row, "instruction", "input", "output", "system", "history")
    turns = _system(row)
    for index, turn in enumerate(_optional_list(row, "history")):
        if (
            not isinstance(turn, list | tuple)
            or len(turn) != 2
            or not all(isinstance(text, str) and text.strip() for text in turn)
        ):
            raise ValueError(f"field history, item {index}: {shown(turn)}; wanted [instruction, answer]")
        turns += [_message("user", turn[0]), _message("assistant", turn[1])]
    context = _optional_string(row, "input")
    asked = _message("user", _prompt(row, "instruction", "input"))
    # Its place in Alpaca's own template is apart from the instruction's.
    turns.append(asked | ({"input": context.strip()} if context and context.strip() else {}))
    turns.append(_message("assistant", _said(row, "output")))
    return {**fields, "messages": turns}


def _self_instruct(row: dict) -> dict:
    """The seed tasks of Self-Instruct and Alpaca, which take the first instance too."""
    instance = _list(row, "instances")[0]
    if not isinstance(instance, Mapping):
        raise ValueError(f"field instances, item 0, is {shown(instance)}; wanted {{input, output}}")
    try:
        said = {"input": _optional_string(instance, "input"), "output": _said(instance, "output")}
    except ValueError as error:
        raise ValueError(f"field instances, item 0: {error}") from error
    return _alpaca({**_without(row, "instances", "history"), **said})


def _sharegpt(row: dict) -> dict:
    turns = [
        message_from(turn, f"conversations, item {index}", _SHAREGPT_ROLES, "from", "value")
        for index, turn in enumerate(_list(row, "conversations"))
    ]
    return {**_without(row, "conversations", "system"), "messages": merge([*_system(row), *turns])}


def _openai_chat(row: dict) -> dict:
    turns = [
        message_from(turn, f"messages, item {index}", _OPENAI_ROLES, "role", "content")
        for index, turn in enumerate(_list(row, "messages"))
    ]
    return {**_without(row, "system"), "messages": merge([*_system(row), *turns])}


def _hh_rlhf(row: dict) -> dict:
    chosen, rejected = (_hh_rlhf_dialogue(row, name) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("chosen and rejected differ before their last answers: they must answer the same prompt")
    answers = {"chosen": chosen[-1]["content"], "rejected": rejected[-1]["content"]}
    return {**_without(row, "system"), "messages": [*_system(row), *chosen[:-1]], **answers}


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
    return merge(_message(_HH_RLHF_ROLES[speaker], content) for speaker, content in pairs)


_FORMATS: Mapping[str, tuple[str, Callable[[dict], dict]]] = {
    "alpaca": ("dialogues", _alpaca),
    "self_instruct": ("dialogues", _self_instruct),
    "sharegpt": ("dialogues", _sharegpt),
    "openai_chat": ("dialogues", _openai_chat),
    "hh_rlhf": ("preferences", _hh_rlhf),
}


def _with_messages(fields: dict, kind: str) -> dict:
    """Returns the fields with messages: their own, or from columns: system, user with its context, the assistant's."""
    if "messages" in fields:
        messages = fields["messages"]
        if not isinstance(messages, list | tuple) or not all(isinstance(message, Mapping) for message in messages):
            return fields  # which the check refuses
        return {**_without(fields, "system"), "messages": [*_system(fields), *with_weights(messages)]}
    if "user" not in fields:
        return fields
    messages = [*_system(fields), _message("user", _prompt(fields, "user", "context"))]
    used = ("system", "user", "context")
    if kind == "dialogues":
        messages.append(_message("assistant", _said(fields, "assistant")))
        used = (*used, "assistant")
    return {**_without(fields, *used), "messages": messages}


def _with_safety_label(fields: dict) -> dict:
    safe = _required(fields, "chosen_safe"), _required(fields, "rejected_safe")
    if not all(isinstance(flag, bool) for flag in safe):
        raise ValueError(f"fields chosen_safe and rejected_safe are {safe}; wanted true or false")
    label = SAFETY_LABELS.get(safe, "rejected_safe")
    return {**_without(fields, "chosen_safe", "rejected_safe"), "safety_label": label}


def _message(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def _system(row: Mapping) -> list[dict]:
    """Returns a row's system message, if it has one, beside its turns."""
    system = _optional_string(row, "system")
    return [_message("system", system)] if system else []


def _prompt(row: Mapping, instruction: str, context: str) -> str:
    """Returns an instruction, with its context (if any) below it."""
    text = _said(row, instruction)
    below = _optional_string(row, context)
    return f"{text.strip()}\n\n{below.strip()}" if below.strip() else text


def _said(row: Mapping, field: str) -> str:
    text = _string(_required(row, field), f"field {field}")
    if not text.strip():
        raise ValueError(f"field {field} is {shown(text)}; wanted a string that is not empty")
    return text


def _optional_string(row: Mapping, field: str) -> str:
    return "" if row.get(field) is None else _string(row[field], f"field {field}")


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is of type {type(value).__name__}, not a string: {shown(value)}")
    return value


def _list(row: Mapping, field: str) -> list:
    value = _required(row, field)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"field {field} is of type {type(value).__name__}; wanted a list that is not empty")
    return list(value)


def _optional_list(row: Mapping, field: str) -> list:
    """Returns a list; an empty one for null and for the empty string of a CSV file."""
    return [] if row.get(field) in (None, "", []) else _list(row, field)


def _required(row: Mapping, field: str) -> object:
    if field not in row:
        raise ValueError(f"there is no field {field}; there are {', '.join(map(str, row)) or 'none'}")
    return row[field]


def _without(row: Mapping, *names: str) -> dict:
    return {name: value for name, value in row.items() if name not in names}
