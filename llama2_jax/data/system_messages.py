"""System messages that say how an answer is given, for a source's `prepare`.

Koala conditions on the quality of an answer by a marker, and takes comparisons as two dialogues with either marker;
Orca draws one of several instructions by the sub-collection that a query is from (arXiv 2306.02707, section 3.1).
"""

from collections.abc import Mapping, Sequence

from llama2_jax.data.content_hash import prompt_hash, uniform
from llama2_jax.data.records import ANSWERS, messages_of, required

_ANSWERS = frozenset(field for fields in ANSWERS.values() for name in fields for field in (name, f"{name}_tokens"))


def marked(record: Mapping, *, marker: str, answer: str = "", without: Sequence[str] = ()) -> dict | None:
    """Returns a conversation that begins with a marker as its system message.

    Args:
      record: of a conversation; a system message of its own is kept behind the marker.
      marker: such as "a helpful answer".
      answer: the field with an answer to the messages, "chosen" or "rejected" of a comparison: the record is then a
        dialogue that ends in it, and it alone is trained on. By default the messages are all.
      without: texts that no turn may have, such as the tags of the chat format that it is to be written in.

    Returns:
      The record; None if a turn has such a text.

    Raises:
      ValueError: if there is no such field.
    """
    messages, kept = messages_of(record), {name: value for name, value in record.items() if name not in _ANSWERS}
    own = [message["content"] for message in messages[:1] if message.get("role") == "system"]
    told = {"role": "system", "content": "\n".join([marker, *own])}
    said = [{"role": "assistant", "content": required(record, answer)}] if answer else []
    turns = [*messages[len(own) :], *said]
    if any(one in str(turn["content"]) for one in without for turn in turns):
        return None
    return {**kept, "messages": [told, *turns], **({"loss": "last"} if answer else {})}


def instructed(record: Mapping, *, instructions: Mapping[str, Sequence[str]], field: str = "category") -> dict:
    """Returns a conversation with one of its sub-collection's instructions as system message.

    Args:
      record: of a conversation without a system message.
      instructions: by sub-collection; "" among them stands for none. Which one a record gets depends on what it asks.
      field: of the record, with the sub-collection.

    Raises:
      ValueError: if the record's sub-collection has no instructions, or it has a system message already.
    """
    messages, name = messages_of(record), required(record, field)
    if name not in instructions:
        raise ValueError(f"field {field} is {name!r}; there are instructions for {', '.join(instructions) or 'none'}")
    if messages and messages[0].get("role") == "system":
        raise ValueError("messages begin with a system message: an instruction would replace it")
    choices = instructions[name]
    asked = [message for message in messages if message.get("role") == "user"]
    chosen = choices[int(uniform("instruction", prompt_hash(asked)) * len(choices))]
    told = [{"role": "system", "content": chosen}] if chosen else []
    return {**record, "messages": [*told, *messages]}
