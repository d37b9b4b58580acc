"""The programs of generation and scoring, compiled for shapes alone: to know what they need before a model exists.

They are the very programs that `generate` and `score` run, called with the shapes that these call them with.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llama2_jax.inference.batches import generation_batch_size, rows_of_prompts
from llama2_jax.inference.generate import DecodedRows, bucket, decode_rows, prefill_rows
from llama2_jax.inference.score import following_log_probabilities, scoring_batch_size, token_scores
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.decoding import DecodingWeights, decoding_weights, weight_shardings
from llama2_jax.sharding.mesh import mesh_of
from llama2_jax.sizing.abstract import compile_abstract, with_shardings


@dataclasses.dataclass(frozen=True)
class GenerationShapes:
    """The shapes of a batch of answers as `generate` makes them.

    Attributes:
      rows: answers decoded together.
      prompt_rows: prompts taken in together.
      prompt_length: tokens of a prompt, padded.
      new_tokens: the longest answer.
    """

    rows: int
    prompt_rows: int
    prompt_length: int
    new_tokens: int


def longest_prompts(
    config: ModelConfig, mesh: Mesh, max_new_tokens: int, samples_per_prompt: int = 1
) -> GenerationShapes:
    """The shapes where the longest prompt is as long as the model and the answer's length allow."""
    rows, longest = generation_batch_size(config, mesh), config.max_length - max_new_tokens
    prompt_rows = rows_of_prompts(samples_per_prompt, rows, mesh)
    return GenerationShapes(rows, prompt_rows, min(bucket(longest), longest), max_new_tokens)


def abstract_weights(config: ModelConfig, params: Any) -> DecodingWeights:
    """What `generation_weights` makes of abstract parameters, with shardings."""
    mesh = mesh_of(params)
    shapes = jax.eval_shape(functools.partial(decoding_weights, config=config), params)
    if mesh is None:
        one = jax.tree.leaves(params)[0].sharding
        # A mesh of one device: how a parameter would be split on it does not suit weights of fewer dimensions.
        one = NamedSharding(one.mesh, PartitionSpec()) if isinstance(one, NamedSharding) else one
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), shapes)
    return with_shardings(shapes, weight_shardings(config, mesh))


def compile_prefill(config: ModelConfig, weights: Any, shapes: GenerationShapes) -> jax.stages.Compiled:
    """The program that takes prompts in.

    Args:
      config: the language model.
      weights: from `abstract_weights`.
      shapes: of the batch.
    """
    return compile_abstract(*_prefill(weights, shapes), **_prefill_settings(config, weights, shapes))


def compile_decode(config: ModelConfig, weights: Any, shapes: GenerationShapes, top_p: float) -> jax.stages.Compiled:
    """The program that decodes a batch until every answer has ended: a loop of at most shapes.new_tokens."""
    function, *arguments = _prefill(weights, shapes)
    made = jax.eval_shape(lambda *given: function(*given, **_prefill_settings(config, weights, shapes)), *arguments)
    # What prefill leaves on the devices is what decoding finds there.
    hidden, cache = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        made,
        compile_prefill(config, weights, shapes).output_shardings,
    )
    integers, integer = _vector(shapes.rows, jnp.int32), _scalar(jnp.int32)
    rows = DecodedRows(
        integers, _vector(shapes.rows, jnp.float32), integers, used=integer, eos_id=integer,
        top_p=None if top_p == 1.0 else _scalar(jnp.float32),
    )  # fmt: skip
    return compile_abstract(
        decode_rows,
        weights, hidden, cache, rows, jax.eval_shape(lambda: jax.random.key(0)),
        config=config, steps=shapes.new_tokens, mesh=mesh_of(weights),
    )  # fmt: skip


def compile_log_probabilities(config: ModelConfig, params: Any) -> jax.stages.Compiled:
    """The program of `response_log_probabilities`: one batch of rows."""
    return compile_abstract(
        following_log_probabilities, params, *_scored(config, params),
        temperature=_scalar(jnp.float32), config=config, mesh=mesh_of(params),
    )  # fmt: skip


def compile_token_scores(config: ModelConfig, params: Any) -> jax.stages.Compiled:
    """The program of `rewards` and `values`: one batch of rows."""
    return compile_abstract(token_scores, params, *_scored(config, params), config=config, mesh=mesh_of(params))


def _prefill(weights: Any, shapes: GenerationShapes) -> tuple:
    prompts = jax.ShapeDtypeStruct((shapes.prompt_rows, shapes.prompt_length), jnp.int32)
    return prefill_rows, weights, prompts, prompts, _vector(shapes.rows, jnp.int32)


def _prefill_settings(config: ModelConfig, weights: Any, shapes: GenerationShapes) -> dict[str, Any]:
    return {"config": config, "slots": shapes.prompt_length + shapes.new_tokens, "mesh": mesh_of(weights)}


def _scored(config: ModelConfig, params: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    rows = scoring_batch_size(config, mesh_of(params))
    return (jax.ShapeDtypeStruct((rows, config.max_length), jnp.int32),) * 3


def _vector(size: int, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((size,), dtype)


def _scalar(dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), dtype)
