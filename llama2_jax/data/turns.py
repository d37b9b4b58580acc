"""The turns of a conversation in the formats of others, as the project's messages.

A message has `role`, `content` and, for an answer that is not trained on, `weight` 0. What a turn says besides that
changes its meaning (a call of a tool, a picture, a name, a mask) is refused: left out silently, the model would learn
from a dialogue that nobody wrote.
"""

from collections.abc import Iterable, Mapping

from llama2_jax.data.bad_line import shown

# Whether an answer is trained on: `weight` of OpenAI, Mistral and OpenChat, `train` of axolotl, `loss` of ms-swift.
_WEIGHTS = ("weight", "train", "loss")
_UNSUPPORTED_IN_TURN = (
    "name", "tool_calls", "tool_call_id", "function_call", "refusal", "prefix", "reasoning_content", "thinking",
    "image", "images", "video", "videos", "audio", "audios", "files", "attachments", "mask", "loss_mask",
    "train_detail",
)  # fmt: skip
_UNSUPPORTED_IN_ROW = (
    "weight", "tools", "functions", "tool_calls", "function_call", "image", "images", "video", "videos", "audio",
    "audios", "mask", "loss_mask",
)  # fmt: skip
_EMPTY = (None, "", [], {}, ())
_TEXT_PARTS = (None, "text", "input_text", "output_text")


def message_from(turn: object, place: str, roles: Mapping[str, str], role_field: str, content_field: str) -> dict:
    """Converts a turn to a message.

    Args:
      turn: the turn, as it is in the file.
      place: of the turn in its row, for messages.
      roles: for each of the format's roles ours.
      role_field, content_field: the names of the format's fields. The content is a string, or a list of parts of text.

    Raises:
      ValueError: if the turn is not of this shape, or has what a message cannot say; the message names the field.
    """
    if not isinstance(turn, Mapping):
        raise ValueError(f"{place} is {shown(turn)}; wanted {{{role_field}, {content_field}}}")
    role = turn.get(role_field)
    if not isinstance(role, str) or role not in roles:
        raise ValueError(f"{place}: {role_field} is {shown(role)}; wanted one of {', '.join(roles)}")
    # First what cannot be said at all: a call of a tool has no content, and that is not what is wrong with it.
    weight = answer_weight(turn, roles[role], place)
    return {"role": roles[role], "content": _text(turn.get(content_field), f"{place}, {content_field}"), **weight}


def answer_weight(turn: Mapping, role: object, place: str) -> dict[str, int]:
    """Returns {"weight": 0} for an answer that is not trained on, and {} for every other turn.

    Raises:
      ValueError: if the turn has what a message cannot say: a weight other than 0 or 1, or one of 1 for a turn that is
        no answer, or a field of `_UNSUPPORTED_IN_TURN`.
    """
    for field in _UNSUPPORTED_IN_TURN:
        if turn.get(field) not in _EMPTY:
            raise ValueError(f"{place}: field {field} is {shown(turn[field])}; {_NOT_SUPPORTED}")
    weights = {field: turn[field] for field in _WEIGHTS if turn.get(field) is not None}
    for field, weight in weights.items():
        if weight not in (0, 1):
            raise ValueError(f"{place}: field {field} is {shown(weight)}; wanted 1 to train on the turn, or 0")
        if weight and role != "assistant":
            raise ValueError(f"{place}: field {field} is {shown(weight)}, but only an assistant's turn is trained on")
    if len(set(weights.values())) > 1:
        raise ValueError(f"{place}: fields {' and '.join(weights)} contradict each other: {weights}")
    return {"weight": 0} if role == "assistant" and weights and not any(weights.values()) else {}


def with_weights(messages: Iterable[Mapping]) -> list[dict]:
    """Returns messages of the project's own shape with what says whether they are trained on as `weight` 0 or absent.

    Raises:
      ValueError: as `answer_weight`.
    """
    weighted = []
    for index, message in enumerate(messages):
        absent = {*_WEIGHTS, *(("tokens",) if message.get("tokens") is None else ())}
        kept = {name: value for name, value in message.items() if name not in absent}
        weighted.append(kept | answer_weight(message, message.get("role"), f"message {index}"))
    return weighted


def refuse_unsupported(row: Mapping, kind: str) -> None:
    """Refuses what a row says of its whole conversation and the chat format cannot.

    Raises:
      ValueError: with the field.
    """
    # The margin of the ranking loss is the rating's.
    for field in (*_UNSUPPORTED_IN_ROW, *(("margin",) if kind == "preferences" else ())):
        value = row.get(field)
        if value not in _EMPTY and not (field == "weight" and value == 1):
            raise ValueError(
                f"field {field} is {shown(value)}; {_NOT_SUPPORTED}. If it does not matter, name only the other "
                "fields in the source's columns"
            )


def merge(messages: Iterable[Mapping]) -> list[dict]:
    """Returns messages with consecutive ones of one role joined by an empty line.

    Raises:
      ValueError: if one of them is trained on and the next one not.
    """
    merged: list[dict] = []
    for message in messages:
        content = message["content"].strip()
        if not merged or merged[-1]["role"] != message["role"]:
            merged.append({**message, "content": content})
            continue
        if merged[-1].get("weight", 1) != message.get("weight", 1):
            raise ValueError(
                f"two consecutive turns are the {message['role']}'s and are joined, but only one has weight 0: give "
                "both the same, or remove one"
            )
        merged[-1]["content"] = "\n\n".join(part for part in (merged[-1]["content"], content) if part)
    return merged


_NOT_SUPPORTED = "the chat format has no place for it, and without it the row would mean something else"


def _text(content: object, place: str) -> str:
    if isinstance(content, list):
        for index, part in enumerate(content):
            text = part.get("text") if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS else None
            if not isinstance(text, str):
                raise ValueError(f"{place} has parts that are not text: part {index} is {shown(part)}")
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError(f"{place} is of type {type(content).__name__}, not a string: {shown(content)}")
    return content
