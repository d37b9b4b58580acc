r"""The Llama 2 chat format: dialogues as token ids, and which of the ids are trained on.

Each pair of a user's turn and its answer is encoded on its own, between BOS and EOS:

    <s>[INST] {user} [/INST] {answer} </s>

and an open user turn as `<s>[INST] {user} [/INST]`. A system message is folded into the first user turn, as
`<<SYS>>\n{system}\n<</SYS>>\n\n{user}`. This is `chat_completion` of Meta's generation.py, id by id.

Where the answer begins: Meta encodes a pair as one string, while an answer is sampled after the ids of the prompt
alone. The two agree, because a Llama tokenizer has no piece with a space after another character: nothing can join
the `]` of the prompt and the space before the answer. So the ids of a pair are the prompt's ids, the answer's and EOS.
With a tokenizer of other rules a piece may span that border: the pair's ids are still Meta's, and the answer begins at
the first id that differs from the prompt's, so that a piece with a part of the answer in it is trained on.

What was sampled is never encoded again: an assistant message may carry its ids beside its text, as "tokens", and they
are then used as they are; `encode_with_answer` appends sampled ids to a prompt.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int

from llama2_jax.text.tokenizer import Tokenizer

Message = Mapping[str, object]
Loss = Literal["answers", "last", "none"]

SPECIAL_TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")


class SpecialTagError(ValueError):
    """A message contains a tag of the chat format, by which it could pass for another speaker."""


@dataclasses.dataclass(frozen=True)
class EncodedDialogue:
    """A dialogue's ids, and 1 in the loss mask where an id is trained on (as a target), 0 elsewhere."""

    tokens: Int[np.ndarray, "length"]
    loss_mask: Int[np.ndarray, "length"]

    def __len__(self) -> int:
        return len(self.tokens)


def encode_dialogue(tokenizer: Tokenizer, messages: Sequence[Message], loss: Loss = "answers") -> EncodedDialogue:
    """Encodes a dialogue (PAPER section 3.1; Meta's chat format).

    Args:
      tokenizer: the tokenizer.
      messages: {"role", "content"}: perhaps a system message, then user and assistant in turn. An assistant message may
        carry the ids it was sampled as under "tokens"; they stand for its content, and EOS is added where they lack it.
      loss: "answers": the tokens of all answers and their EOS are trained on; "last": those of the last answer alone
        (Ghost Attention, section 3.3); "none". An EOS that was added to sampled ids is not trained on: the answer was
        cut off there, not finished.

    Returns:
      The ids: finished pairs, and after them the open user turn where the dialogue ends in one.

    Raises:
      SpecialTagError: if a message contains one of SPECIAL_TAGS.
      ValueError: if roles are out of order, a message lacks a field, or loss="last" and the dialogue ends in no answer.
    """
    if loss not in ("answers", "last", "none"):
        raise ValueError(f'loss={loss!r}: choose "answers", "last" or "none"')
    users, answers = _turns(messages)
    if loss == "last" and (len(answers) < len(users) or not answers):
        raise ValueError(f'loss="last" trains on the last answer, but the last message is of {messages[-1]["role"]!r}')
    tokens: list[int] = []
    mask: list[int] = []
    for index, user in enumerate(users):
        trained = loss == "answers" or (loss == "last" and index == len(users) - 1)
        answer = answers[index] if index < len(answers) else None
        ids, first, end = _encode_turn(tokenizer, user, answer, trained)
        tokens += ids
        mask += [0] * first + [1] * (end - first) + [0] * (len(ids) - end)
    return EncodedDialogue(np.asarray(tokens, np.int32), np.asarray(mask, np.int32))


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The ids that an answer is sampled after: earlier pairs, then the open user turn with BOS and without EOS.

    Raises:
      SpecialTagError, ValueError: as `encode_dialogue`; and ValueError if the last message is not the user's.
    """
    if messages and messages[-1].get("role") != "user":
        raise ValueError(
            f"a prompt ends in a user message; the last of {len(messages)} is of {messages[-1].get('role')!r}"
        )
    return encode_dialogue(tokenizer, messages, loss="none").tokens.tolist()


def encode_with_answer(
    prompt_ids: Sequence[int], answer_ids: Sequence[int], eos_id: int | None = None
) -> EncodedDialogue:
    """A prompt and an answer by their ids, as they were sampled; the loss on the answer alone.

    Args:
      prompt_ids: `encode_prompt`'s ids.
      answer_ids: the sampled ids, EOS among them if the answer was finished.
      eos_id: if given, an answer that does not end in it gets it, and is trained to end there.

    Raises:
      ValueError: if either is empty.
    """
    answer = [int(one) for one in answer_ids]
    if eos_id is not None and answer[-1:] != [eos_id]:
        answer.append(eos_id)
    if not len(prompt_ids) or not answer:
        raise ValueError(f"a prompt of {len(prompt_ids)} and an answer of {len(answer)} tokens: neither may be empty")
    tokens = np.asarray([*prompt_ids, *answer], np.int32)
    return EncodedDialogue(tokens, (np.arange(len(tokens)) >= len(prompt_ids)).astype(np.int32))


def dialogue_text(messages: Sequence[Message]) -> str:
    """The text of a dialogue as it is encoded, without BOS and EOS: for a tokenizer's training, or for a reader."""
    users, answers = _turns(messages)
    pairs = [_pair_text(user, str(answer["content"])) for user, answer in zip(users, answers, strict=False)]
    return "".join(pairs) + "".join(_prompt_text(user) for user in users[len(answers) :])


def check_messages(messages: Sequence[Message]) -> None:
    """Checks that messages can be encoded: fields, order of roles, no tags of the chat format.

    Raises:
      SpecialTagError, ValueError: saying which message is wrong and what was wanted.
    """
    if not messages:
        raise ValueError("a dialogue has at least one message; this one has none")
    for index, message in enumerate(messages):
        missing = {"role", "content"} - message.keys()
        if missing:
            raise ValueError(f"message {index} has the fields {sorted(message)}: it lacks {sorted(missing)}")
        if not isinstance(message["content"], str):
            raise ValueError(f"message {index}: content is of type {type(message['content']).__name__}, not a string")
        # Sampled ids are used as they are: their text is never encoded, so no tag can come to life.
        found = [] if "tokens" in message else [tag for tag in SPECIAL_TAGS if tag in message["content"]]
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


def _turns(messages: Sequence[Message]) -> tuple[list[str], list[Message]]:
    """The user's texts, the system message folded into the first; and the assistant's messages."""
    check_messages(messages)
    system, turns = None, messages
    if messages[0]["role"] == "system":
        system, turns = messages[0]["content"], messages[1:]
    users = [str(message["content"]) for message in turns[::2]]
    if system is not None:
        users[0] = f"<<SYS>>\n{system}\n<</SYS>>\n\n{users[0]}"
    return users, list(turns[1::2])


def _prompt_text(user: str) -> str:
    return f"[INST] {user.strip()} [/INST]"


def _pair_text(user: str, answer: str) -> str:
    return f"{_prompt_text(user)} {answer.strip()} "


def _encode_turn(tokenizer: Tokenizer, user: str, answer: Message | None, trained: bool) -> tuple[list[int], int, int]:
    """A user's turn and its answer (None: not there yet): the ids, and from where to where they are trained on."""
    if answer is None:
        ids = tokenizer.encode(_prompt_text(user), bos=True)
        return ids, len(ids), len(ids)
    if "tokens" in answer:
        prompt = tokenizer.encode(_prompt_text(user), bos=True)
        ids = [*prompt, *map(int, answer["tokens"])]
        end = len(ids)
        ids += [tokenizer.eos_id] * (ids[-1] != tokenizer.eos_id)
        return ids, len(prompt) if trained else end, end
    ids = tokenizer.encode(_pair_text(user, answer["content"]), bos=True, eos=True)
    return ids, _border(tokenizer, user, ids) if trained else len(ids), len(ids)


def _border(tokenizer: Tokenizer, user: str, pair: list[int]) -> int:
    """Where the answer begins in a pair's ids: after the prompt's, or at the first id that differs from them."""
    prompt = tokenizer.encode(_prompt_text(user), bos=True)
    if pair[: len(prompt)] == prompt:
        return len(prompt)
    return next(index for index, (one, other) in enumerate(zip(prompt, pair, strict=False)) if one != other)
