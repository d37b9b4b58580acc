"""The project's kinds of records, and their check.

| kind         | fields                                                                                      |
|--------------|---------------------------------------------------------------------------------------------|
| text         | `text`                                                                                      |
| dialogues    | `messages`, the last one an assistant's; optional `loss`: "answers" (all of them) or "last" |
| prompts      | `messages`, the last one the user's; optional `safety` (true if an answer may be unsafe)    |
|              | and `category`, by default false and ""                                                     |
| preferences  | `messages` as in prompts, `chosen`, `rejected`, `domain`; optional `rating`, `safety_label` |
| rankings     | `messages` as in prompts, `answers` (a list of texts) and of each its rank in `ranks`,      |
|              | 1 for the best, ties allowed; optional `domain`                                             |
| samples      | `messages` as in prompts, `response`                                                        |
| instructions | `instruction`; optional `terse`, a shorter form, by default the same                        |
| preprompts   | `preprompt`; optional `category` of the prompts that it is for, by default "" (all)         |
| user_turns   | `turns`: what the user says turn by turn, or `messages`; optional `instruction`, `terse`,   |
|              | and `applies_to`: the turns (1, 2, ...) that the instruction applies to, by default all     |
| instructed   | `turns`, and `messages`: a system message with an instruction; optional `seen`              |
| raw          | any                                                                                         |

Null is the same as absent for a field that may be left out. Further fields are kept. An assistant's message has
`weight` 0 if it is not trained on. A sampled answer may carry its ids: `response_tokens`, `chosen_tokens`,
`rejected_tokens`, `answers_tokens` (a list for each answer), or `tokens` in an assistant's message.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from llama2_jax.data.bad_line import shown
from llama2_jax.text.dialogue import check_messages

CONVERSATIONS = ("dialogues", "prompts", "preferences", "rankings", "samples")
KINDS = ("text", *CONVERSATIONS, "instructions", "preprompts", "user_turns", "instructed", "raw")
RATINGS = ("significantly_better", "better", "slightly_better", "negligibly_better")
DOMAINS = ("helpfulness", "safety")
# By whether the chosen and the rejected answer are safe (section 3.2.1). (False, True) is excluded.
SAFETY_LABELS = {(True, False): "chosen_safe", (True, True): "both_safe", (False, False): "both_unsafe"}

# The fields with an answer to the messages.
ANSWERS = {"preferences": ("chosen", "rejected"), "samples": ("response",)}


def check_record(record: Mapping, kind: str) -> None:
    """Checks that a record is of its kind.

    Raises:
      ValueError: if it is not; with the field, what was found and what was wanted.
    """
    if kind == "text":
        _check_text(record, "text")
    elif kind == "preprompts":
        _check_said(record, "preprompt")
    elif kind in ("instructions", "user_turns", "instructed"):
        _check_instructed(record, kind)
    elif kind != "raw":
        _check_conversation(record, ends_in="assistant" if kind == "dialogues" else "user")
    for field in ANSWERS.get(kind, ()):
        _check_answer(record, field)
    if kind == "dialogues":
        _check_loss(record)
    if kind == "preferences":
        _check_comparison(record)
    if kind == "rankings":
        _check_ranking(record)
    if kind == "prompts":
        _check_prompt(record)
    if kind in ("prompts", "samples", "preprompts") and not isinstance(record.get("category", ""), str):
        raise ValueError(f"field category is {shown(record['category'])}; wanted a string")


def messages_of(record: Mapping) -> list[Mapping]:
    """Returns a record's messages, or raises a ValueError if they are no list of objects."""
    messages = required(record, "messages")
    if not isinstance(messages, list | tuple) or not all(isinstance(message, Mapping) for message in messages):
        raise ValueError(f"field messages is {shown(messages)}; wanted a list of {{role, content}}")
    return list(messages)


def _check_conversation(record: Mapping, ends_in: str) -> None:
    messages = messages_of(record)
    check_messages(messages)
    _check_texts(messages)
    if messages[-1]["role"] != ends_in:
        raise ValueError(f"the last message is of {messages[-1]['role']!r}; wanted {ends_in!r}")


def _check_texts(messages: Sequence[Mapping]) -> None:
    """Checks the texts and ids of messages, whose roles are right.

    The ids of a file are not believed to be those of a model: their text may not have the chat format's tags either.
    """
    for index, message in enumerate(messages):
        if "tokens" in message:
            _check_tokens(message["tokens"], f"message {index}: tokens")
        elif message["role"] != "system" and not message["content"].strip():
            raise ValueError(f"message {index} ({message['role']}) is empty: its content (or value) has no text")
    check_messages([{"role": message["role"], "content": message["content"]} for message in messages])


def _check_tokens(tokens: object, place: str) -> None:
    ids = tokens.tolist() if isinstance(tokens, np.ndarray) else tokens
    if not isinstance(ids, list | tuple) or not ids or not all(_is_id(one) for one in ids):
        raise ValueError(f"{place} is {shown(tokens)}; wanted a list of token ids that is not empty")


def _is_id(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= value < 2**31


def _check_answer(record: Mapping, field: str) -> None:
    if f"{field}_tokens" in record:
        _check_tokens(record[f"{field}_tokens"], f"field {field}_tokens")
        if not isinstance(required(record, field), str):
            raise ValueError(f"field {field} is {shown(record[field])}; wanted a string")
    else:
        _check_text(record, field)
    _check_no_tags("assistant", record[field], field)


def _check_no_tags(role: str, text: str, field: str) -> None:
    """Checks a text that is encoded as a message, or as part of one."""
    before = [{"role": "user", "content": ""}] if role == "assistant" else []
    try:
        check_messages([*before, {"role": role, "content": text}])
    except ValueError as error:
        raise ValueError(f"field {field}: {error}") from error


def _check_said(record: Mapping, field: str) -> None:
    _check_text(record, field)
    _check_no_tags("user", record[field], field)


def _check_instructed(record: Mapping, kind: str) -> None:
    if kind == "instructions" or record.get("instruction") is not None:
        _check_said(record, "instruction")
        _check_said(record, "terse")
    if kind == "instructions":
        return
    if kind == "instructed" or "turns" in record or "messages" not in record:
        turns = required(record, "turns")
        if not isinstance(turns, list | tuple) or not turns:
            raise ValueError(f"field turns is {shown(turns)}; wanted a list of what the user says, not empty")
        for index, turn in enumerate(turns):
            if not isinstance(turn, str) or not turn.strip():
                raise ValueError(f"field turns, item {index}, is {shown(turn)}; wanted a string that is not empty")
            _check_no_tags("user", turn, f"turns, item {index}")
    if kind == "instructed":
        messages = messages_of(record)
        if not messages or messages[0].get("role") != "system":
            raise ValueError(f"field messages is {shown(messages)}; wanted a system message with the instruction")
        check_messages([messages[0], {"role": "user", "content": ""}])
        _check_boolean(record, "seen")
    elif "messages" in record and "turns" not in record:
        check_messages(messages_of(record))
    if kind == "user_turns" and record.get("applies_to") is not None:
        _check_applies_to(record["applies_to"], len(user_turns(record)))


def user_turns(record: Mapping) -> list[str]:
    """Returns the user's side of a dialogue: its `turns`, or the user's part of its `messages`."""
    if "turns" in record:
        return list(record["turns"])
    return [message["content"] for message in record["messages"] if message["role"] == "user"]


def _check_applies_to(turns: object, count: int) -> None:
    whole = isinstance(turns, list | tuple) and all(_is_id(turn) and 1 <= turn <= count for turn in turns)
    if not whole:
        raise ValueError(f"field applies_to is {shown(turns)}; wanted a list of numbers of turns, from 1 to {count}")


def _check_loss(record: Mapping) -> None:
    loss = record.get("loss", "answers")
    if loss not in ("answers", "last"):
        raise ValueError(f'field loss is {shown(loss)}; wanted "answers" or "last"')
    answers = [message for message in record["messages"] if message["role"] == "assistant"]
    if not any(message.get("weight", 1) for message in (answers[-1:] if loss == "last" else answers)):
        raise ValueError("no answer is trained on: the weight of each is 0")


def _check_prompt(record: Mapping) -> None:
    for field in ("safety", "seen"):
        _check_boolean(record, field)
    if "domain" in record:
        _check_choice(record, "domain", DOMAINS)


def _check_boolean(record: Mapping, field: str) -> None:
    if not isinstance(record.get(field, False), bool):
        raise ValueError(f"field {field} is {shown(record[field])}; wanted true or false")


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
    by_text = "chosen_tokens" not in record or "rejected_tokens" not in record
    same = by_text or list(record["chosen_tokens"]) == list(record["rejected_tokens"])
    if record["chosen"] == record["rejected"] and same:
        raise ValueError("chosen and rejected are the same answer: there is nothing to prefer")


def _check_ranking(record: Mapping) -> None:
    answers, ranks = required(record, "answers"), required(record, "ranks")
    if not isinstance(answers, list | tuple) or len(answers) < 2:
        raise ValueError(f"field answers is {shown(answers)}; wanted a list of at least two answers")
    for index, answer in enumerate(answers):
        if not isinstance(answer, str):
            raise ValueError(f"field answers, item {index}, is {shown(answer)}; wanted a string")
        if "answers_tokens" not in record and not answer.strip():
            raise ValueError(f"field answers, item {index}, is {shown(answer)}; wanted a string that is not empty")
        _check_no_tags("assistant", answer, f"answers, item {index}")
    if "answers_tokens" in record:
        tokens = record["answers_tokens"]
        if not isinstance(tokens, list | tuple) or len(tokens) != len(answers):
            raise ValueError(
                f"field answers_tokens is {shown(tokens)}; wanted the ids of each of {len(answers)} answers"
            )
        for index, ids in enumerate(tokens):
            _check_tokens(ids, f"field answers_tokens, item {index},")
    are_ranks = isinstance(ranks, list | tuple) and all(_is_id(rank) and rank >= 1 for rank in ranks)
    if not are_ranks or len(ranks) != len(answers):
        raise ValueError(
            f"field ranks is {shown(ranks)}; wanted a whole number for each of {len(answers)} answers, 1 for the best"
        )
    if len(set(ranks)) == 1:
        raise ValueError("all answers have the same rank: there is nothing to prefer")
    if "domain" in record:
        _check_choice(record, "domain", DOMAINS)


def _check_choice(record: Mapping, field: str, choices: tuple[str, ...]) -> None:
    value = required(record, field)
    if value not in choices:
        raise ValueError(f"field {field} is {shown(value)}; wanted one of {', '.join(choices)}")


def _check_text(record: Mapping, field: str) -> None:
    value = required(record, field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"field {field} is {shown(value)}; wanted a string that is not empty")


def required(record: Mapping, field: str) -> object:
    """Returns a field of a record, or raises a ValueError that says how a source can give it."""
    if field not in record:
        raise ValueError(
            f"there is no field {field}; there are {', '.join(map(str, record)) or 'none'}. Name its column in the "
            "source's columns, or give it in the source's defaults"
        )
    return record[field]
