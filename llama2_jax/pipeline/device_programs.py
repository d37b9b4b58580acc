"""The programs that stages run on devices, described for the dry run.

A stage that uses devices has, next to its `run`, a function `device_work(config, model, mesh)` made of these. The
programs are the stage's own, compiled for shapes alone, so the description cannot drift from what runs.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.inference.abstract import (
    GenerationShapes,
    abstract_weights,
    compile_decode,
    compile_log_probabilities,
    compile_prefill,
    compile_token_scores,
    compile_tree_states,
    longest_prompts,
)
from llama2_jax.inference.rows import rows_at_once
from llama2_jax.models.adapters import (
    AdapterConfig,
    adapt,
    is_adapted,
    separate,
    trained_shardings,
)
from llama2_jax.models.adapters import abstract_trained as abstract_adapters
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.flops import forward_flops, head_flops, layer_flops, training_flops
from llama2_jax.models.heads import abstract_params, build_model
from llama2_jax.models.layer import LAYER_AXES
from llama2_jax.models.llama import parameter_shardings, quantized_shapes
from llama2_jax.models.quantized import quantization
from llama2_jax.pipeline.model_training import language_model_loss, language_model_step
from llama2_jax.pipeline.trainable import adapter_config, residual_dropout
from llama2_jax.sharding.batches import batch_array_sharding, splittable_rows
from llama2_jax.sharding.mesh import row_multiple
from llama2_jax.sizing.abstract import compile_abstract, with_shardings
from llama2_jax.sizing.programs import Program, ResidentModel
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import TrainState, state_shardings

LONGEST_PROMPTS = "prompts are as long as model.max_length - max_new_tokens allows, and no answer ends before its limit"
TURN_AFTER_TURN = "dialogues, which are read in small blocks, are counted as if each turn's prompt were prefilled whole"


def abstract_model(
    name: str, model: ModelConfig, mesh: Mesh, head: str = "language", beside: AdapterConfig | None = None
) -> ResidentModel:
    """Returns a model that is only applied, with a "language" or "scalar" head; `beside` adapters as these want it."""
    params = _abstract_params(model, mesh, head) if beside is None else abstract_frozen(model, mesh, head, beside)
    return ResidentModel(name, params)


def abstract_trained(
    name: str, model: ModelConfig, optimizer: ConfigDict, mesh: Mesh, head: str = "language",
    adapters: AdapterConfig | None = None,
) -> ResidentModel:  # fmt: skip
    """Returns a model that is trained, or its adapters, with the optimizer's state as `create_state` makes it."""
    params = trained = _abstract_params(model, mesh, head)
    if adapters is not None:
        places = trained_shardings(head, adapters, mesh, LAYER_AXES)
        trained = with_shardings(abstract_adapters(model, head, adapters), places)
        params = adapt(abstract_frozen(model, mesh, head, adapters), trained, adapters)
    transformation = make_optimizer(OptimizerConfig(**optimizer))
    shardings = state_shardings(transformation, jax.tree.map(lambda leaf: leaf.sharding, trained))
    opt_state = with_shardings(jax.eval_shape(transformation.init, trained), shardings.opt_state)
    return ResidentModel(name, params, opt_state)


def abstract_frozen(model: ModelConfig, mesh: Mesh, head: str, adapters: AdapterConfig) -> Any:
    """Returns a model's parameters as `trainable.as_frozen` leaves them, as shapes with shardings."""
    params = _abstract_params(model, mesh, head, model.compute_dtype)
    return quantized_shapes(params, quantization(adapters.quantize), mesh)


def adapters_of(trained: ResidentModel) -> ResidentModel:
    """Returns the adapters of a model alone, with their optimizer's state, where the rest is counted elsewhere."""
    return ResidentModel(f"{trained.name}, adapters", separate(trained.params)[0], trained.opt_state)


def train_state(trained: ResidentModel) -> TrainState:
    """Returns a trained model's abstract state, the first argument of its step."""
    mesh = jax.tree.leaves(trained.params)[0].sharding.mesh
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    params = separate(trained.params)[0] if is_adapted(trained.params) else trained.params
    return TrainState(jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated), params, trained.opt_state)


def abstract_batch(fields: Mapping[str, tuple[tuple[int, ...], Any]], mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns a batch as `shard_batch` puts it on the devices, from each array's shape and dtype."""
    stacked = len(fields["tokens"][0]) == 3
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_array_sharding(shape, mesh, stacked))
        for name, (shape, dtype) in fields.items()
    }


def rows_of(names: tuple[str, ...], rows: int, length: int, dtype: Any = jnp.int32) -> dict[str, tuple]:
    """Returns fields of a batch that are [rows, length]."""
    return dict.fromkeys(names, ((rows, length), dtype))


def packed_rows(sequences: int, mesh: Mesh, accumulation: int = 1) -> int:
    """Returns the most rows that so many packed sequences take: one each; see `row_multiple`."""
    multiple = row_multiple(mesh, accumulation=accumulation)
    return -(-sequences // multiple) * multiple


def train_step(
    step: Callable, trained: ResidentModel, batch: Mapping, model_flops: float, *,
    name: str = "train step", resident: tuple[ResidentModel, ...] = (), calls: int = 1, dropped: bool = False,
) -> Program:  # fmt: skip
    """Returns a compiled step of `training.step.build_train_step` on an abstract batch, all `resident` models there.

    `dropped` says whether the step has residual dropout.
    """
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    frozen = [one for one in (_frozen(trained.params, dropped),) if one]
    compile_step = functools.partial(compile_abstract, step, train_state(trained), batch, rate, *frozen)
    return Program(name, compile_step, (trained,), _others(trained, resident), model_flops, calls)


def language_model_training(settings: ConfigDict, model: ModelConfig, mesh: Mesh) -> Program:
    """Returns the step of `fit_language_model` on batches of settings.batch_size rows of settings.length tokens."""
    adapters = adapter_config(settings)
    trained = abstract_trained("model", model, settings.optimizer, mesh, adapters=adapters)
    dropout, optimizer = residual_dropout(settings), OptimizerConfig(**settings.optimizer)
    step = language_model_step(model, optimizer, settings.accumulation, mesh, adapters, dropout)
    flops = training_flops(model, settings.batch_size, settings.length, adapters=adapters)
    batch = _language_batch(settings, mesh, settings.accumulation)
    return train_step(step, trained, batch, flops, dropped=dropout > 0)


def held_out_loss(settings: ConfigDict, model: ModelConfig, mesh: Mesh) -> Program:
    """Returns the loss of a batch, measured now and then."""
    trained = abstract_trained("model", model, settings.optimizer, mesh, adapters=adapter_config(settings))
    return batch_loss(ResidentModel("model", trained.params), settings, model, mesh)


def batch_loss(applied: ResidentModel, settings: ConfigDict, model: ModelConfig, mesh: Mesh) -> Program:
    """Returns the loss of a model on a batch of settings.batch_size rows of settings.length tokens."""
    loss, batch = language_model_loss(model, mesh), _language_batch(settings, mesh)
    flops = forward_flops(model, settings.batch_size, settings.length)
    compile_loss = functools.partial(compile_abstract, loss, applied.params, batch)
    return Program("held-out loss", compile_loss, (applied,), (), flops)


def generation(
    settings: ConfigDict,
    model: ModelConfig,
    mesh: Mesh,
    policy: ResidentModel,
    resident: tuple[ResidentModel, ...] = (),
    *,
    top_p: float | None = None,
    samples_per_prompt: int = 1,
    answers: int = 0,
    shapes: GenerationShapes | None = None,
) -> tuple[Program, Program]:
    """Returns the two programs of `inference.generate.generate`, the decoding weights next to the parameters.

    Args:
      settings: has max_new_tokens, and top_p unless that is given.
      model, mesh: what generates, and where.
      policy: the model that answers.
      resident: all models that the stage keeps on the devices meanwhile, with or without the policy itself.
      top_p: the nucleus.
      samples_per_prompt: as for `generate`.
      answers: how many are sampled in the stage's unit of work; 0 if the data decide.
      shapes: of a batch; by default that of `generate` for the longest prompts.
    """
    shapes = shapes or longest_prompts(model, mesh, settings.max_new_tokens, samples_per_prompt)
    calls = math.ceil(answers / shapes.rows)
    top_p = settings.top_p if top_p is None else top_p
    weights = ResidentModel(f"{policy.name}, decoding weights", abstract_weights(model, policy.params))
    stored = ResidentModel(policy.name, policy.params)
    co_resident = (stored, *_others(policy, resident), *_optimizer_of(policy))
    return (
        Program(
            "prefill", functools.partial(compile_prefill, model, weights.params, shapes), (weights,), co_resident,
            _prefill_flops(model, shapes), calls,
        ),
        Program(
            "decode", functools.partial(compile_decode, model, weights.params, shapes, top_p), (weights,), co_resident,
            _decode_flops(model, shapes), calls, loop_trips=shapes.new_tokens,
        ),
    )  # fmt: skip


def continuations(model: ModelConfig, mesh: Mesh, of: ResidentModel) -> Program:
    """Returns the program of `score_continuations` that reads contexts, the decoding weights next to the parameters."""
    weights = ResidentModel(f"{of.name}, decoding weights", abstract_weights(model, of.params))
    flops = layer_flops(model, rows_at_once(model, mesh, model.max_length) * model.max_length, model.max_length / 2)
    compile_program = functools.partial(compile_tree_states, model, weights.params)
    return Program("continuations", compile_program, (weights,), (ResidentModel(of.name, of.params),), flops)


def score_log_probabilities(
    name: str, model: ModelConfig, mesh: Mesh, of: ResidentModel, resident: tuple[ResidentModel, ...], rows: int = 0
) -> Program:
    """Returns the program of `score.response_log_probabilities`; `rows` are scored in the stage's unit of work."""
    compile_program = functools.partial(compile_log_probabilities, model, of.params)
    return _scoring(name, compile_program, model, mesh, of, resident, rows, "language")


def score_tokens(
    name: str, model: ModelConfig, mesh: Mesh, of: ResidentModel, resident: tuple[ResidentModel, ...] = (),
    rows: int = 0,
) -> Program:  # fmt: skip
    """Returns the program of `score.rewards` and `score.values`; `rows` are scored in the stage's unit of work."""
    compile_program = functools.partial(compile_token_scores, model, of.params)
    return _scoring(name, compile_program, model, mesh, of, resident, rows, "scalar")


def _scoring(name, compile_program, model, mesh, of, resident, rows, head) -> Program:
    batch_size = rows_at_once(model, mesh, model.max_length)
    flops = forward_flops(model, batch_size, model.max_length, head)
    uses, co_resident = (ResidentModel(of.name, of.params),), (*_others(of, resident), *_optimizer_of(of))
    return Program(name, compile_program, uses, co_resident, flops, math.ceil(rows / batch_size))


def _frozen(params: Any, dropped: bool) -> dict[str, Any]:
    """The argument of a step that an adapted model or residual dropout adds to it, as `trainable.divide` makes it."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    frozen = {"residual_dropout_key": key} if dropped else {}
    if not is_adapted(params):
        return frozen
    adapters_drop = any(getattr(one, "dropout", 0) for one in params["trunk"]["layers"].values())
    return {**frozen, "params": separate(params)[1], **({"dropout_key": key} if adapters_drop else {})}


def _others(used: ResidentModel, resident: tuple[ResidentModel, ...]) -> tuple[ResidentModel, ...]:
    return tuple(model for model in resident if model is not used)


def _optimizer_of(model: ResidentModel) -> tuple[ResidentModel, ...]:
    """A model's optimizer state, for a program that reads the parameters alone."""
    return () if model.opt_state is None else (ResidentModel(model.name, (), model.opt_state),)


@functools.lru_cache
def _abstract_params(model: ModelConfig, mesh: Mesh, head: str, dtype: str = "float32") -> Any:
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), abstract_params(model, head))
    return with_shardings(shapes, parameter_shardings(build_model(model, head), mesh))


def _language_batch(settings: ConfigDict, mesh: Mesh, accumulation: int = 1) -> dict[str, jax.ShapeDtypeStruct]:
    names = ("tokens", "positions", "segment_ids", "loss_mask")
    rows = splittable_rows(settings.batch_size, mesh, accumulation)
    return abstract_batch(rows_of(names, rows, settings.length), mesh)


def _prefill_flops(model: ModelConfig, shapes: GenerationShapes) -> float:
    return layer_flops(model, shapes.prompt_rows * shapes.prompt_length, shapes.prompt_length / 2)


def _decode_flops(model: ModelConfig, shapes: GenerationShapes) -> float:
    tokens = shapes.rows * shapes.new_tokens
    return layer_flops(model, tokens, shapes.prompt_length + shapes.new_tokens / 2) + head_flops(model, tokens)
