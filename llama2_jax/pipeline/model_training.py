"""How the stages train: a config's schedule and optimizer, given to the one step builder and the one loop."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.inference.score import score_following
from llama2_jax.models.adapters import AdapterConfig
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.flops import training_flops
from llama2_jax.models.heads import build_model
from llama2_jax.models.llama import LanguageModel, Params, parameter_shardings
from llama2_jax.objectives.next_token import count_targets, next_token_loss
from llama2_jax.pipeline.runtime import Runtime, named_key
from llama2_jax.pipeline.trainable import adapter_config, completion, divide, residual_dropout, step_shardings
from llama2_jax.sharding.batches import shard_batch, shard_rows
from llama2_jax.sizing.chips import peak_flops
from llama2_jax.training.adaptation import Adaptation
from llama2_jax.training.loop import FitSettings, fit
from llama2_jax.training.model_folder import save_model_description
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.schedules import Schedule, decaying
from llama2_jax.training.session import Session, open_session
from llama2_jax.training.state import create_state
from llama2_jax.training.step import TrainStep, build_train_step
from llama2_jax.training.throughput import Throughput

Evaluate = Callable[[Params], dict[str, float]]


def fit_language_model(
    settings: ConfigDict,
    params: Params,
    batches: Iterator,
    steps: int,
    runtime: Runtime,
    evaluate: Evaluate | None = None,
    base: epath.Path | None = None,
    kept_steps: Sequence[int] = (),
) -> Params:
    """Trains a language model on next tokens under the batches' loss masks; returns its parameters.

    The model is left in the runtime's folder, where `load_model` finds it.

    Args:
      settings: the optimization (experiments/parts/training.py) and the accumulation.
      params: where training starts; donated to the first step.
      batches: an iterator with get_state and set_state over {tokens, positions, segment_ids, loss_mask [rows, length]}.
      steps: how many.
      runtime: the stage's.
      evaluate: measures of parameters, logged every `settings.evaluate_every` steps; see `held_out_loss`.
      base, kept_steps: as for `fit_model`.
    """
    optimizer, dropout = OptimizerConfig(**settings.optimizer), residual_dropout(settings)
    step = language_model_step(
        runtime.model, optimizer, settings.accumulation, runtime.mesh, adapter_config(settings), dropout
    )
    shard = functools.partial(shard_rows, mesh=runtime.mesh, accumulation=settings.accumulation)
    return fit_model("language", settings, params, step, batches, steps, runtime, evaluate, shard, base, kept_steps)


def fit_model(
    head: str,
    settings: ConfigDict,
    params: Params,
    step: TrainStep,
    batches: Iterator,
    steps: int,
    runtime: Runtime,
    evaluate: Evaluate | None = None,
    shard: Callable[[dict], dict] | None = None,
    base: epath.Path | None = None,
    kept_steps: Sequence[int] = (),
) -> Params:
    """Runs the training loop in the stage's folder, from its newest checkpoint; returns the parameters.

    With `settings.adapters` only adapters are trained and saved (trainable.py).

    Args:
      head: "language" or "scalar".
      settings, params, batches, steps, runtime, evaluate: as for `fit_language_model`.
      step: from `build_model_step`, with the same adapters.
      shard: puts a batch on the devices; by default `shard_batch`.
      base: the folder of the model that `params` are of, which adapters belong to.
      kept_steps: of which checkpoints are kept besides the newest ones.

    Raises:
      ValueError: if adapters are to be trained and there is no base.
    """
    adapters = adapter_config(settings)
    if adapters is not None and base is None:
        raise ValueError(f"{runtime.stage}: adapters.rank={adapters.rank}, but there is no model to adapt")
    adaptation = None if adapters is None else Adaptation.to(base, adapters)
    save_model_description(runtime.folder, runtime.model, head, adaptation)
    key = named_key(runtime.key, "adapters")
    trainable = divide(head, params, adapters, key, runtime, residual_dropout(settings))
    plan = FitSettings(
        steps=steps,
        learning_rate=learning_rate(settings, steps),
        save_every=settings.save_every,
        log_every=settings.log_every,
        evaluate_every=settings.get("evaluate_every", 0),
        throughput=throughput(runtime, settings.length, head, adapters),
        kept_steps=tuple(kept_steps),
    )
    shard = shard or functools.partial(shard_batch, mesh=runtime.mesh)
    with stage_session(runtime, kept_steps=kept_steps) as session:
        state = create_state(trainable.trained, make_optimizer(OptimizerConfig(**settings.optimizer)))
        state = fit(
            state,
            trainable.bind(step),
            batches,
            session,
            plan,
            evaluate=evaluate and (lambda trained: evaluate(trainable.complete(trained))),
            shard_batch=shard,
        )
        return trainable.complete(state.params)


def stage_session(
    runtime: Runtime, checkpoints: str = "checkpoints", kept_steps: Sequence[int] = ()
) -> AbstractContextManager[Session]:
    """Opens a stage's session of checkpoints, metrics, watchdog and interruption in its folder."""
    return open_session(
        runtime.folder, runtime.stage, runtime.interruption, runtime.step_timeout, checkpoints, runtime.wandb_project,
        kept_steps,
    )  # fmt: skip


def throughput(runtime: Runtime, length: int, head: str, adapters: AdapterConfig | None = None) -> Throughput:
    """Returns what MFU is measured by: full rows of `length` tokens, each one sequence."""
    flops = training_flops(runtime.model, 1, length, head, adapters) / length
    return Throughput(flops, peak_flops(runtime.mesh.devices.flat))


def learning_rate(settings: ConfigDict, steps: int) -> Schedule:
    """Returns linear warm-up, then a decay to the final fraction of the peak (constant for a fraction of 1).

    It is a cosine unless the settings name another `decay`.
    """
    warmup = min(steps, max(settings.warmup_steps, math.ceil(settings.warmup_fraction * steps)))
    decay, final = settings.get("decay", "cosine"), settings.final_learning_rate_fraction
    return decaying(decay, settings.learning_rate, steps, warmup, final)


def most_steps(records: float, batch_size: int, epochs: float) -> float:
    """Returns the most steps that epochs over so many records can take; both may be infinite."""
    return math.inf if math.isinf(records) else epochs * math.ceil(records / batch_size)


def check_schedule(settings: ConfigDict, most: float, batch_size: int) -> None:
    """Checks that a training's settings fit each other, before anything runs; stage_values.py checks each by itself.

    Args:
      settings: the optimization (experiments/parts/training.py) and the accumulation.
      most: the steps that the training can have at most.
      batch_size: what `accumulation` divides.

    Raises:
      ValueError: if the warm-up never ends, the batch cannot be divided into `accumulation` microbatches, or the
        optimizer or the adapters have a wrong setting.
    """
    OptimizerConfig(**settings.optimizer)
    adapter_config(settings)
    if settings.warmup_steps >= most:
        raise ValueError(
            f"warmup_steps={settings.warmup_steps} in a run of at most {most:.0f} steps: the learning rate would not "
            "reach its peak; warm up for less, or give more data or smaller batches"
        )
    if batch_size % settings.accumulation:
        raise ValueError(
            f"accumulation={settings.accumulation} must divide the batch of {batch_size} into equal microbatches"
        )


def held_out_loss(batches: Sequence[dict], runtime: Runtime) -> Evaluate:
    """Returns an evaluation of parameters: the mean over held-out batches of the loss in nats a target."""

    def evaluate(params: Params) -> dict[str, float]:
        loss = language_model_loss(runtime.model, runtime.mesh)
        losses = [loss(params, shard_rows(_without_ids(batch), runtime.mesh)) for batch in batches]
        return {"held_out_loss": float(np.mean([float(loss) for loss in losses]))} if losses else {}

    return evaluate


def _without_ids(batch: dict) -> dict:
    return {name: array for name, array in batch.items() if name != "ids"}


def build_model_step(
    head: str,
    loss: Callable,
    count: Callable,
    model: ModelConfig,
    optimizer: OptimizerConfig,
    mesh: Mesh,
    accumulation: int = 1,
    stacked: bool = False,
    adapters: AdapterConfig | None = None,
    residual_dropout: float = 0.0,
) -> TrainStep:
    """Returns the compiled step of a model; to be cached by the caller, so that stages of the same shapes share it.

    Args:
      head: "language" or "scalar".
      loss: `loss(module, params, batch, counts) -> (scalar, metrics)`, contributions already divided by the counts.
      count: `count(batch)` of the whole batch: what `loss` divides by.
      model, optimizer, mesh: what is trained, how and where.
      accumulation, stacked: how a batch is divided into microbatches; see `build_train_step`.
      adapters: what alone is trained; None for all parameters.
      residual_dropout: of the last layer (models/residual_dropout.py).
    """
    module = build_model(model, head, mesh)
    loss = functools.partial(loss, module)
    shardings = step_shardings(head, adapters, mesh, parameter_shardings(module, mesh))
    complete = completion(adapters, residual_dropout)
    return build_train_step(loss, count, make_optimizer(optimizer), accumulation, shardings, stacked, complete)


@functools.lru_cache
def language_model_step(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    accumulation: int,
    mesh: Mesh,
    adapters: AdapterConfig | None = None,
    residual_dropout: float = 0.0,
) -> TrainStep:
    """Returns the compiled step of pretraining and all fine-tuning."""
    return build_model_step(
        "language", _next_token_loss, _count_targets, model, optimizer, mesh, accumulation,
        adapters=adapters, residual_dropout=residual_dropout,
    )  # fmt: skip


@functools.lru_cache
def language_model_loss(model: ModelConfig, mesh: Mesh) -> Callable:
    """Returns the compiled loss of a batch, in nats a target: (params, batch) -> scalar."""
    module = build_model(model, "language", mesh)
    return jax.jit(lambda params, batch: _next_token_loss(module, params, batch, _count_targets(batch))[0])


def _next_token_loss(module: LanguageModel, params: dict, batch: dict, targets: jax.Array) -> tuple[jax.Array, dict]:
    inputs = batch["tokens"], batch["positions"], batch["segment_ids"]
    scores = score_following(module, params, inputs, temperature=1.0)
    return next_token_loss(scores, batch["loss_mask"], batch["segment_ids"], targets)


def _count_targets(batch: dict) -> jax.Array:
    return count_targets(batch["loss_mask"], batch["segment_ids"])
