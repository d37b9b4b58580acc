"""A model answers turn after turn: for Ghost Attention's data and for measuring whether instructions are kept."""

import dataclasses
from collections.abc import Sequence

import jax

from llama2_jax.inference import turns
from llama2_jax.inference.batches import generation_batch_size
from llama2_jax.inference.generate import Sampling
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.runtime import Runtime
from llama2_jax.pipeline.sampling import Policy
from llama2_jax.sharding.mesh import mesh_of
from llama2_jax.text.dialogue import encode_prompt


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
        """Returns the answer of a turn (1, 2, ...) with all before it, as a judge reads it."""
        index = [i for i, message in enumerate(self.messages) if message["role"] == "assistant"][turn - 1]
        return {"messages": self.messages[:index], "response": self.messages[index]["content"]}


def converse(
    policy: Policy,
    user_turns: Sequence[Sequence[str]],
    sampling: Sampling,
    key: jax.Array,
    systems: Sequence[str] | None = None,
    prompt_ids: Sequence[int] | None = None,
) -> list[Conversation]:
    """Answers every dialogue's user turns one after the other, each answer with all before it in its context.

    Args:
      policy: what answers.
      user_turns: for each dialogue what the user says, turn by turn; dialogues may differ in length.
      sampling: how tokens are chosen.
      key: the randomness.
      systems: a system message for each dialogue; none by default.
      prompt_ids: an id for each dialogue, on which with the key its randomness depends; by default their indices.

    Returns:
      A conversation for each dialogue; it ends early if the context is full.
    """
    prompt_ids = range(len(user_turns)) if prompt_ids is None else prompt_ids
    mesh, conversations = mesh_of(policy.params), {}
    # Dialogues of about as many turns together: a row whose dialogue has ended stays idle.
    by_turns = sorted(range(len(user_turns)), key=lambda index: len(user_turns[index]))
    most = generation_batch_size(policy.model, mesh)
    for first in range(0, len(by_turns), most):
        batch = by_turns[first : first + most]
        started = [
            Conversation([{"role": "system", "content": systems[index]}] if systems else [], []) for index in batch
        ]
        answered = _converse_batch(
            policy,
            [user_turns[index] for index in batch],
            started,
            sampling,
            key,
            [prompt_ids[index] for index in batch],
            generation_batch_size(policy.model, mesh, len(batch)),
        )
        conversations |= dict(zip(batch, answered, strict=True))
    return [conversations[index] for index in range(len(user_turns))]


def _converse_batch(
    policy: Policy,
    user_turns: Sequence[Sequence[str]],
    started: list[Conversation],
    sampling: Sampling,
    key: jax.Array,
    prompt_ids: Sequence[int],
    rows: int,
) -> list[Conversation]:
    """`converse` for at most `rows` dialogues, which are answered together; `started` is changed in place."""
    dialogues = turns.begin(policy.model, policy.params, rows)
    for turn in range(max(map(len, user_turns))):
        asked = _prompts(policy, user_turns, started, turn, sampling.max_new_tokens)
        if not asked:
            break
        dialogues, samples = turns.answer_turn(
            dialogues,
            {index: prompt for index, (_, prompt) in asked.items()},
            sampling,
            jax.random.fold_in(key, turn),
            dict(enumerate(prompt_ids)),
            policy.tokenizer.end_id,
        )
        for index, (messages, _) in asked.items():
            answer = {
                "role": "assistant",
                "content": policy.tokenizer.decode(samples[index].tokens).strip(),
                "tokens": samples[index].tokens.tolist(),
            }
            finished = [*started[index].finished, samples[index].finished]
            started[index] = Conversation([*messages, answer], finished)
    return started


def converse_resumable(
    name: str,
    policy: Policy,
    user_turns: Sequence[Sequence[str]],
    sampling: Sampling,
    key: jax.Array,
    runtime: Runtime,
    systems: Sequence[str] | None = None,
) -> list[Conversation]:
    """`converse` for a stage: conversations are saved under this name shard by shard (resumable.py)."""

    def converse_shard(first: int, stop: int) -> list[dict]:
        conversations = converse(
            policy,
            user_turns[first:stop],
            sampling,
            key,
            systems=systems[first:stop] if systems else None,
            prompt_ids=range(first, stop),
        )
        return [dataclasses.asdict(conversation) for conversation in conversations]

    rows = map_resumable(name, len(user_turns), converse_shard, runtime)
    return [Conversation(**row) for row in rows]


def _prompts(
    policy: Policy,
    user_turns: Sequence[Sequence[str]],
    conversations: Sequence[Conversation],
    turn: int,
    max_new_tokens: int,
) -> dict[int, tuple[list[dict], list[int]]]:
    """The messages and their ids for each dialogue that continues in this turn and has room for an answer."""
    found = {}
    for index, (user, conversation) in enumerate(zip(user_turns, conversations, strict=True)):
        if turn < len(user) and len(conversation.finished) == turn:
            messages = [*conversation.messages, {"role": "user", "content": user[turn]}]
            prompt = encode_prompt(policy.tokenizer, messages)
            if len(prompt) <= policy.model.max_length - max_new_tokens:
                found[index] = messages, prompt
    return found
