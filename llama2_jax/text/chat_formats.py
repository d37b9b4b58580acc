r"""How dialogues are written for a model: the Llama 2 chat format, and those of the recipes before it.

A format is data: the texts around what is said. A dialogue's pairs, a user's turn and its answer, are encoded one by
one, each closed by EOS (text/dialogue.py); in LIMA's both utterances are, by a token of their own (`Tokenizer.end_id`).
The format belongs to the tokenizer: a file chat_format.json beside tokenizer.model names it; without one it is Llama
2's. Conversion writes it as Hugging Face's chat_template.
"""

import dataclasses
import json
from collections.abc import Mapping

from etils import epath

FILE = "chat_format.json"


@dataclasses.dataclass(frozen=True)
class ChatFormat:
    r"""The texts around what is said; {user}, {answer}, {system} and {input} stand for it, without spaces around.

    Attributes:
      name: such as "llama2".
      turn: a user's turn, up to where the answer begins.
      answer: an answer, between the turn and EOS.
      beginning: before the first turn. With {system} in it this is the place of the system message.
      default_system: the system message of dialogues without one, where `beginning` has a place for it.
      system_in_turn: the first user's text where there is a system message, with {system} and {user}.
      input_turn: the turn whose message has an `input` beside its instruction, {user}.
      one_turn: whether a dialogue has one user's turn alone.
      bos_each_turn: whether BOS is before each pair, or before the first alone.
      ends_turns: whether every utterance, the user's too, ends with a token of its own, and no answer with EOS.
      tags: texts that no message may have, as they would let it imitate another speaker.
    """

    name: str
    turn: str
    answer: str
    beginning: str = ""
    default_system: str = ""
    system_in_turn: str = ""
    input_turn: str = ""
    one_turn: bool = False
    bos_each_turn: bool = True
    ends_turns: bool = False
    tags: tuple[str, ...] = ()

    @property
    def takes_system(self) -> bool:
        """Whether there is a place for a system message."""
        return bool(self.system_in_turn) or "{system}" in self.beginning


# Section 3.1; Meta's generation.py.
LLAMA2 = ChatFormat(
    name="llama2",
    turn="[INST] {user} [/INST]",
    answer=" {answer} ",
    system_in_turn="<<SYS>>\n{system}\n<</SYS>>\n\n{user}",
    tags=("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
)
# Stanford Alpaca: two templates, with an input and without one; the response follows the colon directly.
_ALPACA = "Below is an instruction that describes a task"
_ALPACA_RESPONSE = "Write a response that appropriately completes the request."
ALPACA = ChatFormat(
    name="alpaca",
    turn=f"{_ALPACA}. {_ALPACA_RESPONSE}\n\n### Instruction:\n{{user}}\n\n### Response:",
    input_turn=(
        f"{_ALPACA}, paired with an input that provides further context. {_ALPACA_RESPONSE}\n\n"
        "### Instruction:\n{user}\n\n### Input:\n{input}\n\n### Response:"
    ),
    answer="{answer}",
    one_turn=True,
    tags=("### Instruction:", "### Input:", "### Response:"),
)
# Vicuna v1.1.
VICUNA = ChatFormat(
    name="vicuna",
    beginning="{system} ",
    default_system=(
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions."
    ),
    turn="USER: {user} ASSISTANT:",
    answer=" {answer}",
    bos_each_turn=False,
    tags=("USER:", "ASSISTANT:"),
)
KOALA = ChatFormat(
    name="koala",
    beginning="BEGINNING OF CONVERSATION: ",
    turn="USER: {user} GPT:",
    answer="{answer}",
    bos_each_turn=False,
    tags=("BEGINNING OF CONVERSATION:", "USER:"),
)
# With a marker of an answer's quality before the first turn; what has none is taken to be helpful, and asked to be. The
# blog post does not print where the markers stand.
KOALA_MARKED = dataclasses.replace(
    KOALA, name="koala_marked", beginning="BEGINNING OF CONVERSATION: {system} ", default_system="a helpful answer"
)
# LIMA, section 3: no text but the utterances, each closed by a new token, EOT, which is spared what pretraining made of
# EOS.
LIMA = ChatFormat(name="lima", turn="{user}", answer="{answer}", bos_each_turn=False, ends_turns=True)
FORMATS: Mapping[str, ChatFormat] = {one.name: one for one in (LLAMA2, ALPACA, VICUNA, KOALA, KOALA_MARKED, LIMA)}


def chat_format(name: str) -> ChatFormat:
    """Returns the format of a name.

    Raises:
      ValueError: if there is none.
    """
    if name not in FORMATS:
        raise ValueError(f"chat_format={name!r}: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def format_beside(tokenizer_model: epath.PathLike) -> ChatFormat:
    """Returns the format that the file beside a tokenizer.model names; Llama 2's if there is no such file.

    Raises:
      ValueError: if the file does not name a format.
    """
    path = epath.Path(tokenizer_model).parent / FILE
    if not path.exists():
        return LLAMA2
    try:
        return chat_format(json.loads(path.read_text())["name"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path} does not name a chat format ({error}); wanted {{"name": one of {", ".join(FORMATS)}}}'
        ) from error


def format_file(one: ChatFormat) -> str:
    """Returns the content of the file that names a format."""
    return json.dumps({"name": one.name}) + "\n"


def chat_template(one: ChatFormat) -> str:
    """Returns a format as the Jinja template of Hugging Face's tokenizer_config.json; an `input` is no part of it."""
    place = "{% set turns = messages %}{% set system = " + _quoted(one.default_system) + " %}"
    if one.takes_system:
        place = (
            "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
            "{% set turns = messages[1:] %}{% else %}" + place + "{% endif %}"
        )
    folded = one.system_in_turn and (
        "{% if loop.first and messages[0]['role'] == 'system' %}{% set text = "
        + _joined(one.system_in_turn, {"system": "system", "user": "turn['content']"})
        + " %}{% else %}{% set text = turn['content'] %}{% endif %}"
    )
    said = folded or "{% set text = turn['content'] %}"
    begins = _joined("{bos}" + one.beginning, {"bos": "bos_token", "system": "system"})
    again = "(bos_token if not loop.first else '') + " if one.bos_each_turn else ""
    turn, answer = (one.turn + "{end}", one.answer + "{end}") if one.ends_turns else (one.turn, one.answer + "{eos}")
    names = {"user": "text.strip()", "answer": "turn['content'].strip()", "eos": "eos_token", "end": "unk_token"}
    return (
        place + "{% for turn in turns %}"
        "{% if turn['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant')"
        + (" or loop.index0 > 1" if one.one_turn else "")
        + " %}{{ raise_exception("
        + _quoted(_wanted_roles(one))
        + ") }}{% endif %}"
        "{% if loop.first %}{{ " + begins + " }}{% endif %}"
        "{% if turn['role'] == 'user' %}" + said + "{{ " + again + _joined(turn, names) + " }}"
        "{% else %}{{ " + _joined(answer, names) + " }}{% endif %}{% endfor %}"
    )


def _wanted_roles(one: ChatFormat) -> str:
    turns = "user and assistant" if one.one_turn else "user, assistant, user, ..."
    return f"{'after a system message, if any, ' if one.takes_system else ''}roles must be {turns}"


def _joined(text: str, names: Mapping[str, str]) -> str:
    """Returns a Jinja expression for a text with {names} in it."""
    parts, rest = [], text
    while rest:
        found = min((at, name) for name in (*names, "") if (at := rest.find(f"{{{name}}}") if name else len(rest)) >= 0)
        at, name = found
        parts += [_quoted(rest[:at])] if at else []
        parts += [names[name]] if name else []
        rest = rest[at + len(name) + 2 :] if name else ""
    return " + ".join(parts)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
