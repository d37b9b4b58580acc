"""Scores of given tokens: log-probabilities under a language model, rewards and values under a scalar model.

Sequences are packed into rows of the model's max_length, and rows go through the network in batches of one fixed shape,
so that every call of a run shares one compiled program a model and kind of score.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel, ScalarModel
from llama2_jax.objectives.target_scores import score_targets
from llama2_jax.sharding.axes import replicate
from llama2_jax.sharding.mesh import data_parallel_size, mesh_of
from llama2_jax.text.packing import Packed, pack

# How many tokens go through the network at once: enough to keep a device busy, few enough that their float32 logits
# (1 GB for a vocabulary of 32,000, less where the model's logits_chunk is set) fit beside the model.
TOKENS_AT_ONCE = 8192

Ids = Sequence[int] | Int[np.ndarray, "length"]


def response_log_probabilities(
    config: ModelConfig, params: Mapping, prompts: Sequence[Ids], responses: Sequence[Ids], temperature: float
) -> list[Float[np.ndarray, "response"]]:
    """For each response token log softmax(logits / temperature)[token], given its prompt and the tokens before it.

    Args:
      config: the language model.
      params: its parameters; where they live on a mesh, rows are split over it.
      prompts: token ids, at least one each.
      responses: the ids that were sampled, with the EOS.
      temperature: that at which they were sampled; above 0.

    Raises:
      ValueError: for an empty prompt or response, and for a pair longer than max_length.
    """
    program = functools.partial(following_log_probabilities, temperature=np.float32(temperature))
    return _by_response(config, params, prompts, responses, program)


def values(
    config: ModelConfig, params: Mapping, prompts: Sequence[Ids], responses: Sequence[Ids]
) -> list[Float[np.ndarray, "response"]]:
    """For each response token the critic's value of the state in which it was chosen: read one token before it.

    The place is that of the logits which the token was sampled from.

    Raises:
      ValueError: for an empty prompt or response, and for a pair longer than max_length.
    """
    return _by_response(config, params, prompts, responses, token_scores)


def rewards(config: ModelConfig, params: Mapping, sequences: Sequence[Ids]) -> Float[np.ndarray, "sequences"]:
    """The scalar model's score of each sequence (prompt and response together), read at its last token.

    Raises:
      ValueError: for a sequence that is empty or longer than max_length.
    """
    if not len(sequences):
        return np.zeros(0, np.float32)
    packed = _packed(sequences, config)
    return _run(token_scores, config, params, packed)[packed.row, packed.last]


def _by_response(
    config: ModelConfig, params: Mapping, prompts: Sequence[Ids], responses: Sequence[Ids], program: Callable
) -> list[Float[np.ndarray, "response"]]:
    """What the program gives at the token before each response token."""
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts and {len(responses)} responses: give one response for each prompt.")
    for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        if not len(prompt) or not len(response):
            raise ValueError(
                f"pair {index} has {len(prompt)} prompt tokens and {len(response)} response tokens; "
                "both must be at least 1."
            )
    if not len(prompts):
        return []
    packed = _packed([np.concatenate([p, r]) for p, r in zip(prompts, responses, strict=True)], config)
    scored = packed.unpack(_run(program, config, params, packed))
    return [row[len(prompt) - 1 : -1] for row, prompt in zip(scored, prompts, strict=True)]


def _packed(sequences: Sequence[Ids], config: ModelConfig) -> Packed:
    return pack([{"tokens": np.asarray(sequence, np.int32)} for sequence in sequences], config.max_length, 1)


def _run(program: Callable, config: ModelConfig, params: Mapping, packed: Packed) -> Float[np.ndarray, "rows length"]:
    """The program's result for all rows, taken in batches of one shape; the last is filled up with padding."""
    mesh = mesh_of(params)
    batch = scoring_batch_size(config, mesh)
    spare = -packed.rows % batch
    arrays = [np.pad(packed.arrays[name], ((0, spare), (0, 0))) for name in ("tokens", "positions", "segment_ids")]
    results = [
        program(params, *(array[first : first + batch] for array in arrays), config=config, mesh=mesh)
        for first in range(0, packed.rows, batch)
    ]
    return np.concatenate([np.asarray(result) for result in results])[: packed.rows]


def scoring_batch_size(config: ModelConfig, mesh: Mesh | None) -> int:
    """How many rows go through the network together: TOKENS_AT_ONCE, and at least one for each part of the mesh."""
    ways = data_parallel_size(mesh)
    return -(-max(1, TOKENS_AT_ONCE // config.max_length) // ways) * ways


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def following_log_probabilities(
    params: Mapping,
    tokens: Int[Array, "rows length"],
    positions: Int[Array, "rows length"],
    segment_ids: Int[Array, "rows length"],
    *,
    temperature: Float[Array, ""],
    config: ModelConfig,
    mesh: Mesh | None,
) -> Float[Array, "rows length"]:
    """At each token the log-probability of the token that follows it in the row."""
    module = LanguageModel(config, mesh)
    hidden, head = module.apply({"params": params}, tokens, positions, segment_ids, method="hidden_and_head")
    scores = score_targets(hidden, head, jnp.roll(tokens, -1, axis=1), temperature, config.logits_chunk)
    return replicate(scores.log_probability, mesh)


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def token_scores(
    params: Mapping,
    tokens: Int[Array, "rows length"],
    positions: Int[Array, "rows length"],
    segment_ids: Int[Array, "rows length"],
    *,
    config: ModelConfig,
    mesh: Mesh | None,
) -> Float[Array, "rows length"]:
    """The scalar model's output at each token."""
    return replicate(ScalarModel(config, mesh).apply({"params": params}, tokens, positions, segment_ids), mesh)
