"""How much attention a model's answers pay to the system message, turn after turn (section 3.3, Figure 10).

Attention is causal, so one forward pass over a whole conversation has the attention of every turn.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from llama2_jax.models.attention_maps import attention_maps
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.flops import layer_flops
from llama2_jax.pipeline.conversations import Conversation
from llama2_jax.pipeline.sampling import Policy
from llama2_jax.sharding.axes import replicate
from llama2_jax.sharding.mesh import data_parallel_size, mesh_of
from llama2_jax.sizing.abstract import compile_abstract
from llama2_jax.sizing.programs import Program, ResidentModel
from llama2_jax.text.dialogue import encode_prompt, encode_with_answer, system_span
from llama2_jax.text.tokenizer import Tokenizer

# Each takes a forward pass over the whole context, and most of its attention weights. The paper shows one dialogue.
DIALOGUES = 8


@dataclasses.dataclass(frozen=True)
class _Row:
    """A conversation's ids, the places of its system message's text, and by turn those that predict the answer."""

    tokens: Int[np.ndarray, " length"]
    system: range
    answers: Mapping[int, slice]


def instruction_attention(
    policy: Policy, conversations: Sequence[Conversation], turns: Sequence[int]
) -> dict[str, float | None]:
    """Returns by turn the largest attention, over layers, heads and the system message's tokens, at an answer's tokens.

    It is read where each token of the answer is predicted, and averaged over the answer, then over the dialogues that
    reach the turn; None if there are none.

    Args:
      policy: what answered.
      conversations: its answers, with their ids; of them DIALOGUES are read, evenly spaced.
      turns: the turns, counted from 1.
    """
    read = min(DIALOGUES, len(conversations))
    spaced = [conversations[index * len(conversations) // read] for index in range(read)]
    rows = [_row(policy.tokenizer, conversation, turns) for conversation in spaced]
    rows = [row for row in rows if row.answers and row.system]
    attention = _largest_attention(policy, rows)
    found = {}
    for turn in turns:
        means = [
            float(of_row[row.answers[turn]].mean())
            for row, of_row in zip(rows, attention, strict=True)
            if turn in row.answers
        ]
        found[str(turn)] = float(np.mean(means)) if means else None
    return found


def instruction_attention_work(
    model: ModelConfig, mesh: Mesh, policy: ResidentModel, co_resident: tuple[ResidentModel, ...]
) -> Program:
    """Returns the program of `instruction_attention` for the dry run; `co_resident` are the stage's other models."""
    shape = data_parallel_size(mesh), model.max_length
    integers, booleans = (jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.int32, jnp.bool_))
    compile_program = functools.partial(
        compile_abstract, largest_attention, policy.params, integers, integers, integers, booleans,
        config=model, mesh=mesh_of(policy.params),
    )  # fmt: skip
    flops = layer_flops(model, shape[0] * shape[1], shape[1] / 2)
    return Program("attention to the system message", compile_program, (policy,), co_resident, flops)


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def largest_attention(
    params: Mapping,
    tokens: Int[Array, "rows length"],
    positions: Int[Array, "rows length"],
    segment_ids: Int[Array, "rows length"],
    system: Bool[Array, "rows length"],
    *,
    config: ModelConfig,
    mesh: Mesh | None,
) -> Float[Array, "rows length"]:
    """Returns the largest attention of each token to those that `system` marks, over all layers and heads."""
    maps = attention_maps(params, tokens, positions, segment_ids, config, mesh)
    return replicate(jnp.max(jnp.where(system[:, None, :], maps, 0.0), axis=-1), mesh)


def _row(tokenizer: Tokenizer, conversation: Conversation, turns: Sequence[int]) -> _Row:
    messages = conversation.messages
    places = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    answers, tokens = {}, np.zeros(0, np.int32)
    for turn in sorted(turn for turn in turns if turn <= len(places)):
        before, sampled = messages[: places[turn - 1]], messages[places[turn - 1]]["tokens"]
        first = len(encode_prompt(tokenizer, before)) - 1
        answers[turn] = slice(first, first + len(sampled))
        tokens = encode_with_answer(tokenizer, before, sampled).tokens
    return _Row(tokens, system_span(tokenizer, messages) if answers else range(0), answers)


def _largest_attention(policy: Policy, rows: Sequence[_Row]) -> list[Float[np.ndarray, " length"]]:
    """Returns the result of `largest_attention` for each row, in batches of one row a group of devices."""
    mesh, found = mesh_of(policy.params), []
    together = data_parallel_size(mesh)
    for first in range(0, len(rows), together):
        shape = together, policy.model.max_length
        tokens, segment_ids, system = (np.zeros(shape, dtype) for dtype in (np.int32, np.int32, bool))
        for index, row in enumerate(rows[first : first + together]):
            tokens[index, : len(row.tokens)] = row.tokens
            segment_ids[index, : len(row.tokens)] = 1
            system[index, row.system.start : row.system.stop] = True
        positions = np.tile(np.arange(shape[1], dtype=np.int32), (together, 1))
        found += [*np.asarray(largest_attention(
            policy.params, tokens, positions, segment_ids, system, config=policy.model, mesh=mesh
        ))]  # fmt: skip
    return found[: len(rows)]
