"""How a model calls tools in its answer (section 5.1, "Tool Use Emergence").

The prompt lists the tools, and the syntax of the paper:

    CALL_API_1: TOOL_NAME | QUERY -> "result_1"

The model writes up to the arrow. The result is put behind it, and the model goes on.
"""

import dataclasses
import re
from collections.abc import Mapping

from llama2_jax.text.dialogue import SPECIAL_TAGS

# What a call begins with, and what it ends with. Text of more than a line is no call.
_CALL = re.compile(r"CALL_API_([^\n]*?)->")
_BEGUN = re.compile(r"CALL_API_[^\n]*")
_PARTS = re.compile(r"\d+\s*:\s*([^|]*?)\s*\|\s*(.*?)\s*")

# Ours, since the paper shows its prompt for one example only.
_PROMPT = """You can use these tools:
{tools}
To use one, write CALL_API_1: TOOL_NAME | QUERY -> "result_1"
You may use several, one after the other. Give the final answer after "The answer is".

{question}"""


@dataclasses.dataclass(frozen=True)
class WrittenCall:
    """A call as a model wrote it.

    Attributes:
      text: all of it, up to the arrow if there is one.
      name: of the tool, known or not; "" if the call is malformed.
      query: what the tool is asked; "" if the call is malformed.
    """

    text: str
    name: str = ""
    query: str = ""

    @property
    def well_formed(self) -> bool:
        """Whether it names a tool and has a query."""
        return bool(self.name and self.query)


def tool_prompt(tools: Mapping[str, str], question: str) -> str:
    """Returns a user's message: the tools, each name with its description, how to call them, and the question."""
    return _PROMPT.format(tools="\n".join(f"{name}: {said}" for name, said in tools.items()), question=question)


def call_text(number: int, name: str, query: str) -> str:
    """Returns a call as a model should write it, up to the arrow; the first has the number 1."""
    return f"CALL_API_{number}: {name} | {query} ->"


def find_call(text: str) -> WrittenCall | None:
    """Returns the first call in a text that is written up to its arrow; None if there is none."""
    found = _CALL.search(text)
    if not found:
        return None
    parts = _PARTS.fullmatch(found.group(1))
    return WrittenCall(found.group(), *(parts.groups() if parts and all(parts.groups()) else ()))


def begun_call(text: str) -> WrittenCall | None:
    """Returns what looks like a call without its arrow, which nobody answers; None if there is nothing."""
    found = _BEGUN.search(text)
    return WrittenCall(found.group()) if found else None


def result_text(result: str, most_characters: int) -> str:
    """Returns a tool's result as it is put behind a call: in quotes, on a line, cut.

    It can neither end the quotes nor imitate a turn. BOS and EOS have no text; the tags of the chat format have one,
    and are taken out.
    """
    # Half of a surrogate pair cannot be encoded.
    text = " ".join(result.encode("utf-8", "replace").decode().replace('"', "'").split())
    for tag in SPECIAL_TAGS:
        # A space, so that what is left and right of a tag makes no new one.
        text = text.replace(tag, " ")
    return f'"{text[:most_characters]}"'
