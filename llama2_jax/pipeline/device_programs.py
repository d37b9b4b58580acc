"""What a stage holds on the devices and which compiled programs it runs there, told without running it.

A stage that uses devices says so in a function `device_work(config, model, mesh)` beside its `run`, in the words of
this file. The programs are the stage's own, compiled for shapes alone: what is told can not drift from what is run.
"""

import dataclasses
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
    longest_prompts,
)
from llama2_jax.inference.score import scoring_batch_size
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.flops import forward_flops, head_flops, layer_flops, training_flops
from llama2_jax.models.llama import (
    LanguageModel,
    ScalarModel,
    init_language_model,
    init_scalar_model,
    parameter_shardings,
)
from llama2_jax.pipeline.model_training import language_model_loss, language_model_step, placement
from llama2_jax.sharding.mesh import row_multiple
from llama2_jax.sizing.abstract import compile_abstract, device_bytes, with_shardings
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import TrainState, state_shardings

LONGEST_PROMPTS = "prompts are as long as model.max_length - max_new_tokens allows, and no answer ends before its limit"


@dataclasses.dataclass(frozen=True)
class ResidentModel:
    """A model on the devices: abstract arrays, split as they will be.

    Attributes:
      name: which model.
      params: its parameters.
      opt_state: its optimizer's state; None where it is not trained.
    """

    name: str
    params: Any
    opt_state: Any = None

    @property
    def parameter_bytes(self) -> int:
        """Of each device."""
        return device_bytes(self.params)

    @property
    def optimizer_bytes(self) -> int:
        """Of each device."""
        return device_bytes(self.opt_state)


@dataclasses.dataclass(frozen=True)
class Program:
    """One of a stage's compiled programs.

    Attributes:
      name: what it does.
      compile: compiles it, for nothing but shapes; may raise DoesNotFitError.
      uses: the models among its arguments.
      co_resident: the models that the stage holds meanwhile besides them.
      model_flops: what it computes for the model's sake, on all devices together (models/flops.py).
      calls: how often it runs in the stage's unit of work; 0: now and then, or as often as there are data.
      loop_trips: how often its loop runs where the program does not tell.
    """

    name: str
    compile: Callable[[], jax.stages.Compiled]
    uses: tuple[ResidentModel, ...]
    co_resident: tuple[ResidentModel, ...]
    model_flops: float
    calls: int = 0
    loop_trips: int = 1


@dataclasses.dataclass(frozen=True)
class DeviceWork:
    """What a stage does on the devices.

    Attributes:
      programs: all that take time or memory worth naming.
      unit: what is repeated, such as "step": each program runs `calls` times in it. Empty where the data decide.
      assumptions: what was assumed of data that are not there yet.
    """

    programs: tuple[Program, ...]
    unit: str = ""
    assumptions: tuple[str, ...] = ()


def abstract_model(name: str, model: ModelConfig, mesh: Mesh, head: str = "language") -> ResidentModel:
    """A model that is only applied; the head is "language" or "scalar"."""
    return ResidentModel(name, _abstract_params(model, mesh, head))


def abstract_trained(
    name: str, model: ModelConfig, optimizer: ConfigDict, mesh: Mesh, head: str = "language"
) -> ResidentModel:
    """A model that is trained, with its optimizer's state as `training.state.create_state` makes it."""
    params = _abstract_params(model, mesh, head)
    transformation = make_optimizer(OptimizerConfig(**optimizer))
    places = state_shardings(transformation, jax.tree.map(lambda leaf: leaf.sharding, params))
    return ResidentModel(name, params, with_shardings(jax.eval_shape(transformation.init, params), places.opt_state))


def train_state(held: ResidentModel) -> TrainState:
    """A trained model's abstract state, the argument of its step."""
    everywhere = jax.sharding.NamedSharding(jax.tree.leaves(held.params)[0].sharding.mesh, jax.sharding.PartitionSpec())
    return TrainState(jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere), held.params, held.opt_state)


def abstract_batch(fields: Mapping[str, tuple[tuple[int, ...], Any]], mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch as `model_training.place` puts it on the devices, from each array's shape and dtype."""
    stacked = len(fields["tokens"][0]) == 3
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=placement(shape, mesh, stacked))
        for name, (shape, dtype) in fields.items()
    }


def rows_of(names: tuple[str, ...], rows: int, length: int, dtype: Any = jnp.int32) -> dict[str, tuple]:
    """Fields of a batch that are [rows, length]."""
    return dict.fromkeys(names, ((rows, length), dtype))


def packed_rows(sequences: int, mesh: Mesh) -> int:
    """The most rows that so many packed sequences take: one each."""
    return -(-sequences // row_multiple(mesh)) * row_multiple(mesh)


def train_step(
    step: Callable, trained: ResidentModel, batch: Mapping, model_flops: float, *,
    name: str = "train step", held: tuple[ResidentModel, ...] = (), calls: int = 1,
) -> Program:  # fmt: skip
    """A compiled step of `training.step.build_train_step` on an abstract batch, while all models in `held` are held."""
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    compile_step = functools.partial(compile_abstract, step, train_state(trained), batch, rate)
    return Program(name, compile_step, (trained,), _others(trained, held), model_flops, calls)


def language_model_training(
    settings: ConfigDict, model: ModelConfig, mesh: Mesh, held: tuple[ResidentModel, ...] = ()
) -> Program:
    """The step of `fit_language_model` on batches of settings.batch_size rows of settings.length tokens."""
    trained = abstract_trained("model", model, settings.optimizer, mesh)
    step = language_model_step(model, OptimizerConfig(**settings.optimizer), settings.accumulation, mesh)
    flops = training_flops(model, settings.batch_size, settings.length)
    return train_step(step, trained, _language_batch(settings, mesh), flops, held=held)


def held_out_loss(settings: ConfigDict, model: ModelConfig, mesh: Mesh) -> Program:
    """The loss of a batch, measured now and then."""
    applied = abstract_model("model", model, mesh)
    loss, batch = language_model_loss(model, mesh), _language_batch(settings, mesh)
    flops = forward_flops(model, settings.batch_size, settings.length)
    return Program(
        "held-out loss", functools.partial(compile_abstract, loss, applied.params, batch), (applied,), (), flops
    )


def generation(
    settings: ConfigDict,
    model: ModelConfig,
    mesh: Mesh,
    policy: ResidentModel,
    held: tuple[ResidentModel, ...] = (),
    *,
    top_p: float | None = None,
    samples_per_prompt: int = 1,
    answers: int = 0,
) -> tuple[Program, Program]:
    """The two programs of `inference.generate.generate`, with the weights laid out for them beside the parameters.

    Args:
      settings: has max_new_tokens, and top_p where that is not given.
      model, mesh: what generates, and where.
      policy: the model that answers.
      held: all models that the stage holds meanwhile, the policy itself or not.
      top_p: the nucleus.
      samples_per_prompt: as for `generate`.
      answers: how many are sampled in the stage's unit of work; 0 where the data decide.
    """
    shapes = longest_prompts(model, mesh, settings.max_new_tokens, samples_per_prompt)
    calls = math.ceil(answers / shapes.rows)
    top_p = settings.top_p if top_p is None else top_p
    weights = ResidentModel(f"{policy.name}, laid out", abstract_weights(model, policy.params))
    stored, others = ResidentModel(policy.name, policy.params), (*_others(policy, held), *_optimizer_of(policy))
    return (
        Program(
            "prefill", functools.partial(compile_prefill, model, weights.params, shapes), (weights,),
            (stored, *others), _prefill_flops(model, shapes), calls,
        ),
        Program(
            "decode", functools.partial(compile_decode, model, weights.params, shapes, top_p), (weights,),
            (stored, *others), _decode_flops(model, shapes), calls, loop_trips=shapes.new_tokens,
        ),
    )  # fmt: skip


def score_log_probabilities(
    name: str, model: ModelConfig, mesh: Mesh, of: ResidentModel, held: tuple[ResidentModel, ...] = (), rows: int = 0
) -> Program:
    """The program of `score.response_log_probabilities`; `rows` are scored in the stage's unit of work."""
    compile_program = functools.partial(compile_log_probabilities, model, of.params)
    return _scoring(name, compile_program, model, mesh, of, held, rows, "language")


def score_tokens(
    name: str, model: ModelConfig, mesh: Mesh, of: ResidentModel, held: tuple[ResidentModel, ...] = (), rows: int = 0
) -> Program:
    """The program of `score.rewards` and `score.values`; `rows` are scored in the stage's unit of work."""
    compile_program = functools.partial(compile_token_scores, model, of.params)
    return _scoring(name, compile_program, model, mesh, of, held, rows, "scalar")


def _scoring(name, compile_program, model, mesh, of, held, rows, head) -> Program:
    at_once = scoring_batch_size(model, mesh)
    flops = forward_flops(model, at_once, model.max_length, head)
    uses, co_resident = (ResidentModel(of.name, of.params),), (*_others(of, held), *_optimizer_of(of))
    return Program(name, compile_program, uses, co_resident, flops, math.ceil(rows / at_once))


def _others(used: ResidentModel, held: tuple[ResidentModel, ...]) -> tuple[ResidentModel, ...]:
    return tuple(one for one in held if one is not used)


def _optimizer_of(held: ResidentModel) -> tuple[ResidentModel, ...]:
    """A model's optimizer state, where a program reads the parameters alone."""
    return () if held.opt_state is None else (ResidentModel(held.name, (), held.opt_state),)


@functools.lru_cache
def _abstract_params(model: ModelConfig, mesh: Mesh, head: str) -> Any:
    module, init = {
        "language": (LanguageModel, init_language_model),
        "scalar": (ScalarModel, init_scalar_model),
    }[head]
    shapes = jax.eval_shape(functools.partial(init, model), jax.eval_shape(lambda: jax.random.key(0)))
    return with_shardings(shapes, parameter_shardings(module(model), mesh))


def _language_batch(settings: ConfigDict, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    names = ("tokens", "positions", "segment_ids", "loss_mask")
    return abstract_batch(rows_of(names, settings.batch_size, settings.length), mesh)


def _prefill_flops(model: ModelConfig, shapes: GenerationShapes) -> float:
    return layer_flops(model, shapes.prompt_rows * shapes.prompt_length, shapes.prompt_length / 2)


def _decode_flops(model: ModelConfig, shapes: GenerationShapes) -> float:
    tokens = shapes.rows * shapes.new_tokens
    return layer_flops(model, tokens, shapes.prompt_length + shapes.new_tokens / 2) + head_flops(model, tokens)
