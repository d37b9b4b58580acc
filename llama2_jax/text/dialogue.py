r"""Dialogues as token ids with a loss mask, in the tokenizer's chat format (chat_formats.py).

Each pair of a user's turn and its answer is encoded separately. In the Llama 2 chat format it is between BOS and EOS:

    <s>[INST] {user} [/INST] {answer} </s>

and an open user turn as `<s>[INST] {user} [/INST]`. A system message is folded into the first user turn, as
`<<SYS>>\n{system}\n<</SYS>>\n\n{user}`. The ids are exactly those of `chat_completion` in Meta's generation.py.

The start of an answer: Meta encodes a pair as one string, but an answer is sampled after the ids of the prompt. The two
agree, because a Llama tokenizer has no piece with a space after another character, so that none can join the `]` of the
prompt and the space before the answer. The ids of a pair are the prompt's ids, the answer's and EOS. With a tokenizer
that has other rules a piece may span that border: the pair's ids are still Meta's, and the answer begins at the first
id that differs from the prompt's, so that a piece with a part of the answer in it is trained on.

Sampled answers are never encoded again: an assistant message may carry its ids in addition to its text, as "tokens",
and these are then used; `encode_with_answer` appends sampled ids to a prompt. A model may sample any id, BOS too: where
a pair begins is known from its encoding (`EncodedDialogue.starts`), and not looked for in the ids.

Other formats may have BOS before the first pair alone, and a text before it; in some the user's turn is closed by a
token too (`Tokenizer.end_id`), and turn and answer are then encoded apart.

An assistant message with "weight" 0 is context alone: later answers see it, and the loss does not. So it is with the
parts of an answer that are "injected", such as the results of tools: [start, end] pairs of places in the content.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int

from llama2_jax.text.chat_formats import LLAMA2, ChatFormat
from llama2_jax.text.tokenizer import Tokenizer

Message = Mapping[str, object]
Loss = Literal["answers", "last", "none"]

SPECIAL_TAGS = LLAMA2.tags


class SpecialTagError(ValueError):
    """A message contains a tag of the chat format, which would let it imitate another speaker."""


@dataclasses.dataclass(frozen=True)
class EncodedDialogue:
    """A dialogue as ids.

    Attributes:
      tokens: the ids.
      loss_mask: 1 for ids that are targets of the loss, 0 for the others.
      starts: where each pair begins whose ids can stand without those before, in order; by default the first alone.
    """

    tokens: Int[np.ndarray, " length"]
    loss_mask: Int[np.ndarray, " length"]
    starts: tuple[int, ...] = (0,)

    def __len__(self) -> int:
        return len(self.tokens)


def encode_dialogue(tokenizer: Tokenizer, messages: Sequence[Message], loss: Loss = "answers") -> EncodedDialogue:
    """Encodes a dialogue in the tokenizer's chat format (section 3.1; Meta's).

    Args:
      tokenizer: the tokenizer.
      messages: {"role", "content"}: an optional system message, then user and assistant in turn. An assistant message
        may carry its sampled ids under "tokens"; they replace its content, and EOS is added if they lack it. One with
        "weight" 0 is not trained on, nor are the parts of one that are "injected". These parts and those between them
        are encoded apart, as in generation (inference/tools.py).
      loss: "answers": the tokens of all answers and their EOS are trained on; "last": only those of the last answer
        (Ghost Attention, section 3.3); "none". An EOS that was added to sampled ids is not trained on: the answer was
        cut off there, not finished.

    Returns:
      The ids of the finished pairs, followed by the open user turn if the dialogue ends in one.

    Raises:
      SpecialTagError: if a message contains one of the format's tags.
      ValueError: if roles are out of order, a message lacks a field, the format has no place for a message, a sampled
        id is outside the vocabulary, or loss="last" and the last message is no answer.
    """
    if loss not in ("answers", "last", "none"):
        raise ValueError(f'loss={loss!r}: choose "answers", "last" or "none"')
    pairs = _pairs(tokenizer.chat_format, messages)
    if loss == "last" and pairs[-1][1] is None:
        raise ValueError(f'loss="last" needs an answer at the end, but the last message is of {messages[-1]["role"]!r}')
    tokens: list[int] = []
    mask: list[int] = []
    starts: list[int] = []
    for index, (turn, answer) in enumerate(pairs):
        trained = loss == "answers" or (loss == "last" and index == len(pairs) - 1)
        trained = trained and (answer is None or answer.get("weight", 1) != 0)
        bos = index == 0 or tokenizer.chat_format.bos_each_turn
        ids, trained_on = _encode_turn(tokenizer, turn, answer, trained, bos)
        starts += [len(tokens)] if bos else []
        tokens += ids
        mask += trained_on
    return EncodedDialogue(np.asarray(tokens, np.int32), np.asarray(mask, np.int32), tuple(starts))


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Returns the ids of a prompt: earlier pairs, then the open user turn with BOS and without EOS.

    Raises:
      SpecialTagError, ValueError: as `encode_dialogue`; and ValueError if the last message is not the user's.
    """
    return _encode_prompt(tokenizer, messages).tokens.tolist()


def encode_with_answer(tokenizer: Tokenizer, messages: Sequence[Message], answer_ids: Sequence[int]) -> EncodedDialogue:
    """Encodes a prompt and appends a sampled answer by its ids; the loss is on the answer only.

    Args:
      tokenizer: the tokenizer.
      messages: the prompt, as in `encode_prompt`.
      answer_ids: the sampled ids, including EOS if the answer is finished.

    Raises:
      SpecialTagError, ValueError: as `encode_prompt`; and ValueError if the answer is empty.
    """
    if not len(answer_ids):
        raise ValueError("a sampled answer has no tokens; wanted at least one, its EOS")
    prompt = _encode_prompt(tokenizer, messages)
    tokens = np.asarray([*prompt.tokens, *answer_ids], np.int32)
    return EncodedDialogue(tokens, (np.arange(len(tokens)) >= len(prompt)).astype(np.int32), prompt.starts)


def system_span(tokenizer: Tokenizer, messages: Sequence[Message]) -> range:
    """Returns the places of the system message's text in the ids of a dialogue; empty without a system message.

    A piece that has a part of the tags around the text in it is left out.

    Raises:
      SpecialTagError, ValueError: as `encode_dialogue`.
    """
    chat_format = tokenizer.chat_format
    (turn, _), *_ = _pairs(chat_format, messages)
    if messages[0]["role"] != "system":
        return range(0)
    place = (
        chat_format.turn.replace("{user}", chat_format.system_in_turn)
        if chat_format.system_in_turn
        else chat_format.beginning
    )
    before = place[: place.index("{system}")]
    ids = tokenizer.encode(turn, bos=True)
    ends = [
        _shared_prefix(ids, tokenizer.encode(text, bos=True)) for text in (before, before + str(messages[0]["content"]))
    ]
    return range(*ends)


def pair_texts(messages: Sequence[Message], chat_format: ChatFormat = LLAMA2) -> list[tuple[str, str | None]]:
    """Returns the texts of each user's turn and of its answer in a chat format; the last may have no answer.

    Raises:
      SpecialTagError, ValueError: as `encode_dialogue`.
    """
    pairs = _pairs(chat_format, messages)
    return [(turn, None if answer is None else _answer_text(chat_format, answer)) for turn, answer in pairs]


def dialogue_text(messages: Sequence[Message], chat_format: ChatFormat = LLAMA2) -> str:
    """Returns the text of a dialogue in a chat format, without BOS and EOS: to train a tokenizer, or to read."""
    return "".join(turn + (answer or "") for turn, answer in pair_texts(messages, chat_format))


def check_messages(messages: Sequence[Message], chat_format: ChatFormat = LLAMA2) -> None:
    """Checks that messages can be encoded: fields, order of roles, no tags of the chat format.

    What a format has no place for is found when messages are encoded.

    Raises:
      SpecialTagError, ValueError: with the message that is wrong and what was wanted.
    """
    if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
        raise ValueError(f'a dialogue is a list of {{"role", "content"}}; found {messages!r:.60}')
    if not messages:
        raise ValueError("a dialogue has at least one message; this one has none")
    for index, message in enumerate(messages):
        _check_fields(message, index)
        # Sampled ids are used unchanged: their text is never encoded, so its tags have no effect.
        found = [] if "tokens" in message else [tag for tag in chat_format.tags if tag in message["content"]]
        if found:
            raise SpecialTagError(
                f"message {index} ({message['role']}) contains {', '.join(found)}: special tags are not allowed as "
                "part of a message. Remove them from the text, or leave the dialogue out"
            )
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    wanted = ["user" if index % 2 == 0 else "assistant" for index in range(len(turns))]
    if not turns or turns != wanted:
        raise ValueError(
            f"roles are {', '.join(map(str, roles))}; wanted: an optional system message, then user and assistant in "
            "turn, beginning with user"
        )


def _encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> EncodedDialogue:
    encoded = encode_dialogue(tokenizer, messages, loss="none")  # checks the messages
    if messages[-1]["role"] != "user":
        raise ValueError(f"a prompt ends in a user message; the last of {len(messages)} is of {messages[-1]['role']!r}")
    return encoded


def _check_fields(message: Message, index: int) -> None:
    """Checks a message by itself: its fields, their types, and that its text is Unicode."""
    missing = {"role", "content"} - message.keys()
    if missing:
        raise ValueError(f"message {index} has the fields {sorted(message)}: it lacks {sorted(missing)}")
    if not isinstance(message["content"], str):
        raise ValueError(f"message {index}: content is of type {type(message['content']).__name__}, not a string")
    try:
        message["content"].encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"message {index}: character {error.start} of content is half of a surrogate pair") from error
    if "tokens" in message and (message["role"] != "assistant" or isinstance(message["tokens"], str | int | float)):
        raise ValueError(
            f"message {index} of role {message['role']!r} has tokens {str(message['tokens'])[:60]}: only an "
            "assistant's message may bring the ids that it was sampled as, as a list"
        )
    if "injected" in message:
        _check_injected(message, index)
    if "input" in message and not (isinstance(message["input"], str) and message["content"].endswith(message["input"])):
        raise ValueError(
            f"message {index} has input={message['input']!r:.60}; wanted the text that its content ends in"
        )
    if message.get("weight", 1) not in (0, 1):
        raise ValueError(f"message {index}: weight is {message['weight']!r}; wanted 1 to train on the answer, or 0")


def _check_injected(message: Message, index: int) -> None:
    pairs, length = message["injected"], len(message["content"])
    listed = isinstance(pairs, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    )
    places = [place for pair in pairs for place in pair] if listed else []
    in_order = all(isinstance(place, int) for place in places) and [0, *places, length] == sorted([0, *places, length])
    if not listed or not in_order or message["role"] != "assistant" or "tokens" in message:
        raise ValueError(
            f"message {index} has injected={pairs!r:.60}; wanted, for an assistant's message without tokens, [start, "
            f"end] pairs in the order of the {length} characters of its content"
        )


def _pairs(chat_format: ChatFormat, messages: Sequence[Message]) -> list[tuple[str, Message | None]]:
    """Returns the text of each user's turn, up to its answer, and the answer's message, if there is one."""
    check_messages(messages, chat_format)
    system, turns = (messages[0]["content"], messages[1:]) if messages[0]["role"] == "system" else (None, messages)
    if system is not None and not chat_format.takes_system:
        raise ValueError(f"the chat format {chat_format.name} has no place for a system message")
    if chat_format.one_turn and len(turns) > 2:
        raise ValueError(
            f"the chat format {chat_format.name} has one user's turn; this dialogue has {(len(turns) + 1) // 2}"
        )
    users = [_turn_text(chat_format, user, system if index == 0 else None) for index, user in enumerate(turns[::2])]
    users[0] = (
        chat_format.beginning.replace("{system}", str(chat_format.default_system if system is None else system))
        + users[0]
    )
    answers = [*turns[1::2], *[None] * (len(turns) % 2)]
    return list(zip(users, answers, strict=True))


def _turn_text(chat_format: ChatFormat, user: Message, system: object) -> str:
    said, context = str(user["content"]), user.get("input")
    if chat_format.input_turn and context:
        return chat_format.input_turn.format(user=said.removesuffix(str(context)).strip(), input=str(context).strip())
    if chat_format.system_in_turn and system is not None:
        said = chat_format.system_in_turn.format(system=system, user=said)
    return chat_format.turn.format(user=said.strip())


def _answer_text(chat_format: ChatFormat, answer: Message) -> str:
    return chat_format.answer.format(answer=str(answer["content"]).strip())


def _encode_turn(
    tokenizer: Tokenizer, turn: str, answer: Message | None, trained: bool, bos: bool
) -> tuple[list[int], list[int]]:
    """Returns the ids of a user's turn and its answer (if any), and for each id whether it is trained on."""
    turn_end = [tokenizer.end_id] if tokenizer.chat_format.ends_turns else []
    prompt = tokenizer.encode(turn, bos=bos) + turn_end
    if answer is None:
        return prompt, [0] * len(prompt)
    if "tokens" in answer:
        ids = [*prompt, *map(int, answer["tokens"])]
        if not 0 <= min(ids) <= max(ids) < tokenizer.vocab_size:
            raise ValueError(f"sampled ids from {min(ids)} to {max(ids)} in a vocabulary of {tokenizer.vocab_size}")
        end = len(ids)
        ids += [tokenizer.end_id] * (ids[-1] != tokenizer.end_id)
        return ids, [int(trained and len(prompt) <= place < end) for place in range(len(ids))]
    if answer.get("injected"):
        return _encode_injected(tokenizer, prompt, answer, trained)
    text = _answer_text(tokenizer.chat_format, answer)
    if turn_end:
        ids = [*prompt, *tokenizer.encode(text), *turn_end]
    else:
        ids = tokenizer.encode(turn + text, bos=bos, eos=True)
    first = _shared_prefix(ids, prompt)  # the answer begins where the pair's ids first differ from the prompt's
    return ids, [int(trained and place >= first) for place in range(len(ids))]


def _encode_injected(
    tokenizer: Tokenizer, prompt: list[int], answer: Message, trained: bool
) -> tuple[list[int], list[int]]:
    """Returns the same for an answer with injected parts; the tokenizer puts a space before each part."""
    content, place, parts = str(answer["content"]), 0, []
    for start, end in answer["injected"]:
        parts += [(content[place:start], trained), (content[start:end], False)]
        place = end
    parts.append((content[place:], trained))
    ids, mask = [*prompt], [0] * len(prompt)
    for text, trained_on in parts:
        encoded = tokenizer.encode(text.strip()) if text.strip() else []
        ids += encoded
        mask += [int(trained_on)] * len(encoded)
    return [*ids, tokenizer.end_id], [*mask, int(trained)]


def _shared_prefix(ids: list[int], others: list[int]) -> int:
    """Returns how many ids at the start are the same."""
    differing = (index for index, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b)
    return next(differing, min(len(ids), len(others)))
