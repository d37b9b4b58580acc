"""The programs of generation and scoring, compiled for abstract shapes: what they need is known before a model exists.

They are the same programs that `generate` and `score` run, compiled for the same shapes.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llama2_jax.inference.batches import generation_batch_size, prompt_batch_size
from llama2_jax.inference.contexts import rows_of
from llama2_jax.inference.continuations import tree_states
from llama2_jax.inference.generate import DecodedRows, bucket, decode_rows, prefill_rows
from llama2_jax.inference.rows import rows_at_once
from llama2_jax.inference.score import following_log_probabilities, token_scores
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.decoding import DecodingWeights, decoding_weights, weight_shardings
from llama2_jax.sharding.mesh import mesh_of
from llama2_jax.sizing.abstract import compile_abstract, with_shardings


@dataclasses.dataclass(frozen=True)
class GenerationShapes:
    """The shapes of a batch in `generate`.

    Attributes:
      rows: answers decoded together.
      prompt_rows: prompts prefilled together.
      prompt_length: tokens of a padded prompt.
      new_tokens: the most tokens of an answer.
    """

    rows: int
    prompt_rows: int
    prompt_length: int
    new_tokens: int


def longest_prompts(
    config: ModelConfig, mesh: Mesh, max_new_tokens: int, samples_per_prompt: int = 1
) -> GenerationShapes:
    """Returns the shapes for prompts as long as the context and the answer's length allow."""
    rows, longest = generation_batch_size(config, mesh), config.max_length - max_new_tokens
    prompt_rows = prompt_batch_size(samples_per_prompt, rows, mesh)
    return GenerationShapes(rows, prompt_rows, min(bucket(longest), longest), max_new_tokens)


def longest_contexts(config: ModelConfig, mesh: Mesh, max_new_tokens: int) -> GenerationShapes:
    """Returns the shapes of `generate_until` for prompts as long as the context and the answer's length allow."""
    rows = rows_of(config, mesh, config.max_length)
    return GenerationShapes(rows, rows, config.max_length - max_new_tokens, max_new_tokens)


def abstract_weights(config: ModelConfig, params: Any) -> DecodingWeights:
    """Returns the weights that `generation_weights` makes of such parameters, as shapes with shardings."""
    mesh = mesh_of(params)
    shapes = jax.eval_shape(functools.partial(decoding_weights, config=config), params)
    if mesh is None:
        sharding = jax.tree.leaves(params)[0].sharding
        if isinstance(sharding, NamedSharding):
            # On a mesh of one device: a parameter's spec does not suit weights of fewer dimensions.
            sharding = NamedSharding(sharding.mesh, PartitionSpec())
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
    return with_shardings(shapes, weight_shardings(config, mesh, shapes.layers))


def compile_prefill(config: ModelConfig, weights: Any, shapes: GenerationShapes) -> jax.stages.Compiled:
    """Compiles the program that prefills prompts.

    Args:
      config: the language model.
      weights: from `abstract_weights`.
      shapes: of the batch.
    """
    return compile_abstract(*_prefill(weights, shapes), **_prefill_settings(config, weights, shapes))


def compile_decode(config: ModelConfig, weights: Any, shapes: GenerationShapes, top_p: float) -> jax.stages.Compiled:
    """Compiles the program that decodes a batch until every answer has ended: a loop of at most shapes.new_tokens."""
    function, *arguments = _prefill(weights, shapes)
    outputs = jax.eval_shape(
        lambda *inputs: function(*inputs, **_prefill_settings(config, weights, shapes)), *arguments
    )
    # Decoding gets prefill's results with the shardings that prefill gives them.
    hidden, cache = with_shardings(outputs, compile_prefill(config, weights, shapes).output_shardings)
    integers, integer = _vector(shapes.rows, jnp.int32), _scalar(jnp.int32)
    rows = DecodedRows(
        integers, _vector(shapes.rows, jnp.float32), integers,
        used=_vector(shapes.rows, jnp.bool_), eos_id=integer,
        top_p=None if top_p == 1.0 else _scalar(jnp.float32),
    )  # fmt: skip
    return compile_abstract(
        decode_rows,
        weights, hidden, cache, rows, jax.eval_shape(lambda: jax.random.key(0)),
        config=config, steps=shapes.new_tokens, mesh=mesh_of(weights),
    )  # fmt: skip


def compile_log_probabilities(config: ModelConfig, params: Any) -> jax.stages.Compiled:
    """Compiles the program of `response_log_probabilities`, for one batch of rows."""
    return compile_abstract(
        following_log_probabilities, params, *_scored_rows(config, params),
        temperature=_scalar(jnp.float32), config=config, mesh=mesh_of(params),
    )  # fmt: skip


def compile_token_scores(config: ModelConfig, params: Any) -> jax.stages.Compiled:
    """Compiles the program of `rewards` and `values`, for one batch of rows."""
    return compile_abstract(token_scores, params, *_scored_rows(config, params), config=config, mesh=mesh_of(params))


def compile_tree_states(config: ModelConfig, weights: Any) -> jax.stages.Compiled:
    """Compiles the program of `score_continuations` that reads contexts, for rows of max_length and no prefix."""
    mesh = mesh_of(weights)
    rows = jax.ShapeDtypeStruct((rows_at_once(config, mesh, config.max_length), config.max_length), jnp.int32)
    return compile_abstract(tree_states, weights, *(rows,) * 4, None, config=config, mesh=mesh)


def _prefill(weights: Any, shapes: GenerationShapes) -> tuple:
    prompts = jax.ShapeDtypeStruct((shapes.prompt_rows, shapes.prompt_length), jnp.int32)
    return prefill_rows, weights, prompts, prompts, _vector(shapes.rows, jnp.int32)


def _prefill_settings(config: ModelConfig, weights: Any, shapes: GenerationShapes) -> dict[str, Any]:
    return {"config": config, "slots": shapes.prompt_length + shapes.new_tokens, "mesh": mesh_of(weights)}


def _scored_rows(config: ModelConfig, params: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    rows = rows_at_once(config, mesh_of(params), config.max_length)
    return (jax.ShapeDtypeStruct((rows, config.max_length), jnp.int32),) * 3


def _vector(size: int, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((size,), dtype)


def _scalar(dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), dtype)
