"""Scores of given tokens: log-probabilities under a language model, rewards and values under a scalar model.

Sequences are packed into rows of few lengths, and rows of one length are scored in batches of one shape, so that all
calls of a run share few compiled programs for each model and kind of score.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from llama2_jax.inference.rows import row_length, rows_at_once
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel, ScalarModel
from llama2_jax.objectives.target_scores import TargetScores, score_targets
from llama2_jax.sharding.axes import replicate
from llama2_jax.sharding.mesh import mesh_of
from llama2_jax.text.packing import Packed, pack

Ids = Sequence[int] | Int[np.ndarray, "length"]
NETWORK_INPUTS = ("tokens", "positions", "segment_ids")


def response_log_probabilities(
    config: ModelConfig, params: Mapping, prompts: Sequence[Ids], responses: Sequence[Ids], temperature: float
) -> list[Float[np.ndarray, " response"]]:
    """Returns log softmax(logits / temperature)[token] of each response token, given the tokens before it.

    Args:
      config: the language model.
      params: its parameters; if they are on a mesh, rows are split over it.
      prompts: token ids, at least one each.
      responses: the ids that were sampled, with the EOS.
      temperature: the one at which they were sampled; above 0.

    Raises:
      ValueError: if a prompt or response is empty, or a pair is longer than max_length.
    """
    program = functools.partial(following_log_probabilities, temperature=np.float32(temperature))
    return _by_response(config, params, prompts, responses, program)


def target_log_probabilities(
    config: ModelConfig, params: Mapping, inputs: Sequence[Ids], targets: Sequence[Ids]
) -> list[Float[np.ndarray, " length"]]:
    """Returns the log-probability of each target, given the inputs up to its place.

    Args:
      config: the language model.
      params: its parameters; if they are on a mesh, rows are split over it.
      inputs: token ids, at least one each and max_length at most.
      targets: for each sequence as many ids.

    Raises:
      ValueError: if a sequence is empty or too long, or has not as many targets.
    """
    if not len(inputs):
        return []
    sequences = [
        {"tokens": np.asarray(tokens, np.int32), "targets": np.asarray(wanted, np.int32)}
        for tokens, wanted in zip(inputs, targets, strict=True)
    ]
    return _run(_target_log_probabilities, config, params, sequences, (*NETWORK_INPUTS, "targets"))


def values(
    config: ModelConfig, params: Mapping, prompts: Sequence[Ids], responses: Sequence[Ids]
) -> list[Float[np.ndarray, " response"]]:
    """Returns the critic's value of the state before each response token, read at the token before it.

    The token was sampled from the logits at the same position.

    Raises:
      ValueError: if a prompt or response is empty, or a pair is longer than max_length.
    """
    return _by_response(config, params, prompts, responses, token_scores)


def rewards(config: ModelConfig, params: Mapping, sequences: Sequence[Ids]) -> Float[np.ndarray, " sequences"]:
    """Returns the scalar model's score of each sequence (prompt and response together), read at its last token.

    Raises:
      ValueError: if a sequence is empty or longer than max_length.
    """
    if not len(sequences):
        return np.zeros(0, np.float32)
    return np.asarray([scores[-1] for scores in _run(token_scores, config, params, _fields(sequences))])


def _by_response(
    config: ModelConfig, params: Mapping, prompts: Sequence[Ids], responses: Sequence[Ids], program: Callable
) -> list[Float[np.ndarray, " response"]]:
    """Returns the program's results at the token before each response token."""
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
    sequences = [np.concatenate([prompt, response]) for prompt, response in zip(prompts, responses, strict=True)]
    scored = _run(program, config, params, _fields(sequences))
    return [row[len(prompt) - 1 : -1] for row, prompt in zip(scored, prompts, strict=True)]


def _fields(sequences: Sequence[Ids]) -> list[dict[str, np.ndarray]]:
    return [{"tokens": np.asarray(sequence, np.int32)} for sequence in sequences]


def _run(
    program: Callable,
    config: ModelConfig,
    params: Mapping,
    sequences: Sequence[Mapping[str, np.ndarray]],
    fields: Sequence[str] = NETWORK_INPUTS,
) -> list[Float[np.ndarray, " length"]]:
    """Returns the program's result for each sequence; those that want rows of one length are packed together."""
    lengths = np.asarray([row_length(len(sequence["tokens"]), config.max_length) for sequence in sequences])
    results: list = [None] * len(sequences)
    for length in np.unique(lengths).tolist():
        members = np.flatnonzero(lengths == length)
        packed = pack([sequences[index] for index in members], length, 1)
        scored = packed.unpack(_score_rows(program, config, params, packed, fields))
        for index, result in zip(members, scored, strict=True):
            results[index] = result
    return results


def _score_rows(
    program: Callable, config: ModelConfig, params: Mapping, packed: Packed, fields: Sequence[str]
) -> Float[np.ndarray, "rows length"]:
    """Returns the program's result for all rows, in batches of one shape; the last one is padded."""
    mesh = mesh_of(params)
    batch_size = rows_at_once(config, mesh, packed.length)
    padding = -packed.rows % batch_size
    arrays = [np.pad(packed.arrays[name], ((0, padding), (0, 0))) for name in fields]
    results = [
        program(params, *(array[first : first + batch_size] for array in arrays), config=config, mesh=mesh)
        for first in range(0, packed.rows, batch_size)
    ]
    return np.concatenate([np.asarray(result) for result in results])[: packed.rows]


def score_following(
    module: LanguageModel, params: Mapping, inputs: tuple[Array, Array, Array], temperature: float | Float[Array, ""]
) -> TargetScores:
    """Scores at each token the one that follows it in the row; training, PPO and scoring share it (compiled code).

    Args:
      module: the language model.
      params: its parameters.
      inputs: tokens, positions and segment_ids, int32 [rows, length].
      temperature: divides the logits.
    """
    hidden, head = module.apply({"params": params}, *inputs, method="hidden_and_head")
    # Rolling the targets and not slicing the states: lengths stay what the chunks divide.
    following = jnp.roll(inputs[0], -1, axis=-1)
    return score_targets(hidden, head, following, temperature, module.config.logits_chunk)


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
    """Returns at each token the log-probability of the token that follows it in the row."""
    scores = score_following(LanguageModel(config, mesh), params, (tokens, positions, segment_ids), temperature)
    return replicate(scores.log_probability, mesh)


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def _target_log_probabilities(
    params: Mapping,
    tokens: Int[Array, "rows length"],
    positions: Int[Array, "rows length"],
    segment_ids: Int[Array, "rows length"],
    targets: Int[Array, "rows length"],
    *,
    config: ModelConfig,
    mesh: Mesh | None,
) -> Float[Array, "rows length"]:
    inputs = tokens, positions, segment_ids
    hidden, head = LanguageModel(config, mesh).apply({"params": params}, *inputs, method="hidden_and_head")
    return replicate(score_targets(hidden, head, targets, 1.0, config.logits_chunk).log_probability, mesh)


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
    """Returns the scalar model's output at each token."""
    return replicate(ScalarModel(config, mesh).apply({"params": params}, tokens, positions, segment_ids), mesh)
