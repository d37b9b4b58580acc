"""Worked answers of GSM8K as explanation traces, or bare, for a source's `prepare` (Orca, arXiv 2306.02707)."""

import re
from collections.abc import Mapping, Sequence

from llama2_jax.data.records import messages_of
from llama2_jax.data.system_messages import instructed

# GSM8K's notes for a calculator, <<48/2=24>>, are no part of the explanation.
_NOTE = re.compile(r"<<[^<>]*>>")
_RESULT = "####"


def worked(record: Mapping, *, explained: bool, instructions: Sequence[str] = ()) -> dict:
    """Returns a dialogue that ends in "The answer is 72.", behind its steps or without them.

    Args:
      record: a dialogue whose last answer has its result behind "####".
      explained: whether the steps are said.
      instructions: of which it gets one as system message (`system_messages.instructed`); by default none.

    Raises:
      ValueError: if the answer has no such result.
    """
    *asked, answer = messages_of(record)
    steps, mark, result = str(answer["content"]).rpartition(_RESULT)
    if not mark:
        raise ValueError(f"the last answer has no {_RESULT} before its result: {answer['content'][-60:]!r}")
    said = f"The answer is {result.strip()}."
    content = f"{_NOTE.sub('', steps).strip()}\n{said}" if explained else said
    dialogue = {**record, "messages": [*asked, {**answer, "content": content}]}
    if not instructions:
        return dialogue
    return instructed({**dialogue, "category": "worked"}, instructions={"worked": instructions})
