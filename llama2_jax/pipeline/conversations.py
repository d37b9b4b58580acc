"""A model answers turn after turn: for Ghost Attention's data and for measuring kept instructions."""

import dataclasses
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.runtime import Runtime
from llama2_jax.text.dialogue import encode_prompt
from llama2_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Conversation:
    """What was said.

    Attributes:
      messages: of all turns; the assistant's carry the ids they were sampled as under "tokens".
      finished: for each answer whether it ended, or was cut off.
    """

    messages: list[dict]
    finished: list[bool]

    @property
    def answers(self) -> list[dict]:
        """The assistant's messages."""
        return [message for message in self.messages if message["role"] == "assistant"]

    def row(self, turn: int) -> dict:
        """The answer of a turn (1, 2, ...) with all before it, as a judge reads it."""
        index = [i for i, message in enumerate(self.messages) if message["role"] == "assistant"][turn - 1]
        return {"messages": self.messages[:index], "response": self.messages[index]["content"]}


def converse(
    model: ModelConfig,
    params: dict,
    tokenizer: Tokenizer,
    user_turns: Sequence[Sequence[str]],
    settings: ConfigDict,
    key: jax.Array,
    systems: Sequence[str] | None = None,
    prompt_ids: Sequence[int] | None = None,
) -> list[Conversation]:
    """Answers every dialogue's user turns one after the other, each answer with all before it in its context.

    Args:
      user_turns: for each dialogue what the user says, turn by turn; dialogues may differ in length.
      settings: temperature, top_p, max_new_tokens.
      systems: a system message for each dialogue; none by default.
      prompt_ids: an id for each dialogue, from which with the key its randomness comes; by default their indices.

    Returns:
      A conversation a dialogue; it ends early where the context was full.
    """
    conversations = [
        Conversation([{"role": "system", "content": systems[index]}] if systems else [], [])
        for index in range(len(user_turns))
    ]
    prompt_ids = range(len(user_turns)) if prompt_ids is None else prompt_ids
    for turn in range(max(map(len, user_turns), default=0)):
        conversations = _answer_turn(
            model, params, tokenizer, user_turns, conversations, turn, settings, key, prompt_ids
        )
    return conversations


def converse_resumable(
    name: str,
    params: dict,
    tokenizer: Tokenizer,
    user_turns: Sequence[Sequence[str]],
    settings: ConfigDict,
    key: jax.Array,
    runtime: Runtime,
    systems: Sequence[str] | None = None,
) -> list[Conversation]:
    """`converse` for a stage: what was said so far is saved (resumable.py) under this name."""

    def hold(first: int, stop: int) -> list[dict]:
        conversations = converse(
            runtime.model, params, tokenizer, user_turns[first:stop], settings, key,
            systems=systems[first:stop] if systems else None, prompt_ids=range(first, stop),
        )  # fmt: skip
        return [dataclasses.asdict(conversation) for conversation in conversations]

    return [Conversation(**row) for row in map_resumable(name, len(user_turns), hold, runtime)]


def _answer_turn(model, params, tokenizer, user_turns, conversations, turn, settings, key, prompt_ids):
    active, asked, prompts = [], [], []
    for index, (user, conversation) in enumerate(zip(user_turns, conversations, strict=True)):
        if turn < len(user) and len(conversation.finished) == turn:
            messages = [*conversation.messages, {"role": "user", "content": user[turn]}]
            prompt = encode_prompt(tokenizer, messages)
            if len(prompt) <= model.max_length - settings.max_new_tokens:
                active.append(index)
                asked.append(messages)
                prompts.append(prompt)
    if not active:
        return conversations
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens)
    samples = generate(
        model, params, prompts, sampling,
        key=jax.random.fold_in(key, turn), eos_id=tokenizer.eos_id, prompt_ids=[prompt_ids[index] for index in active],
    )  # fmt: skip
    conversations = list(conversations)
    for index, messages, sample in zip(active, asked, samples, strict=True):
        answer = {
            "role": "assistant",
            "content": tokenizer.decode(sample.tokens).strip(),
            "tokens": sample.tokens.tolist(),
        }
        finished = [*conversations[index].finished, bool(sample.finished)]
        conversations[index] = Conversation([*messages, answer], finished)
    return conversations
