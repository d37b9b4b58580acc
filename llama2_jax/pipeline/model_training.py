"""How the stages train: a config's schedule and optimizer handed to the one step builder and the one loop."""

import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel, parameter_shardings
from llama2_jax.objectives.next_token import count_targets, next_token_loss
from llama2_jax.objectives.target_scores import score_targets
from llama2_jax.pipeline.runtime import Runtime
from llama2_jax.sharding.mesh import batch_sharding, data_parallel_size
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.loop import fit
from llama2_jax.training.metrics import MetricsWriter
from llama2_jax.training.model_folder import save_model_description
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.schedules import cosine
from llama2_jax.training.state import TrainState, create_state
from llama2_jax.training.step import build_train_step


def fit_language_model(
    settings: ConfigDict,
    params: dict,
    batches: Iterator,
    steps: int,
    runtime: Runtime,
    evaluate: Callable | None = None,
) -> dict:
    """Trains a language model on next tokens under the batches' loss masks; returns its parameters.

    The model is left in the runtime's folder, where `load_model` finds it.

    Args:
      settings: the optimization (experiments.pretrain.optimization) and the accumulation.
      params: where training starts; given up to the step (donated).
      batches: an iterator with get_state and set_state over {tokens, positions, segment_ids, loss_mask [rows, length]}.
      steps: how many.
      runtime: the stage's.
    """
    step = language_model_step(
        runtime.model, OptimizerConfig(**settings.optimizer), settings.accumulation, runtime.mesh
    )
    save_model_description(runtime.folder, runtime.model, "language")
    return fit_in_folder(settings, params, step, batches, steps, runtime).params


def fit_in_folder(
    settings: ConfigDict,
    params: dict,
    step: Callable,
    batches: Iterator,
    steps: int,
    runtime: Runtime,
) -> TrainState:
    """Runs the loop with the folder's checkpoints and metrics, from where it was cut off."""
    state = create_state(params, make_optimizer(OptimizerConfig(**settings.optimizer)))
    with (
        Checkpoints(runtime.folder / "checkpoints") as checkpoints,
        MetricsWriter(runtime.folder) as metrics,
    ):
        return fit(
            state,
            step,
            batches,
            steps=steps,
            learning_rate=learning_rate(settings, steps),
            checkpoints=checkpoints,
            metrics=metrics,
            save_every=settings.save_every,
            log_every=settings.log_every,
            shard_batch=functools.partial(shard_batch, mesh=runtime.mesh),
            description=runtime.stage,
            interruption=runtime.interruption,
            step_timeout=runtime.step_timeout,
        )


def learning_rate(settings: ConfigDict, steps: int) -> Callable[[int], float]:
    """Linear warm-up, then a cosine to the final fraction of the peak (constant for a fraction of 1)."""
    warmup = max(settings.warmup_steps, math.ceil(settings.warmup_fraction * steps))
    return cosine(settings.learning_rate, steps, min(warmup, steps), settings.final_learning_rate_fraction)


def shard_batch(batch: dict, mesh: Mesh) -> dict:
    """Puts a host batch on the devices: rows split over them where they divide, else whole on each.

    Of stacked microbatches, [accumulation, rows, ...], each one's rows are split and not the microbatches. All
    processes hand over the same batch; each puts on its own devices what belongs there.
    """
    stacked = np.ndim(batch["tokens"]) == 3

    def put(array: np.ndarray) -> jax.Array:
        sharding = placement(array.shape, mesh, stacked)
        return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

    return {name: put(np.asarray(array)) for name, array in batch.items()}


def placement(shape: tuple[int, ...], mesh: Mesh, stacked: bool = False) -> NamedSharding:
    """Where an array of a batch goes, [rows, ...] or, stacked, [accumulation, rows, ...]."""
    if shape[int(stacked)] % data_parallel_size(mesh):
        return NamedSharding(mesh, PartitionSpec())
    return batch_sharding(mesh, stacked)


@functools.lru_cache
def language_model_step(model: ModelConfig, optimizer: OptimizerConfig, accumulation: int, mesh: Mesh) -> Callable:
    """The compiled step of pretraining and all fine-tuning: one program for all stages of the same shapes."""
    module = LanguageModel(model, mesh if mesh.size > 1 else None)
    return build_train_step(
        functools.partial(_next_token_loss, module),
        _count_targets,
        make_optimizer(optimizer),
        accumulation,
        parameter_shardings(module, mesh),
    )


@functools.lru_cache
def language_model_loss(model: ModelConfig, mesh: Mesh) -> Callable:
    """The compiled loss of a batch, in nats a target: params, batch -> scalar."""
    module = LanguageModel(model, mesh if mesh.size > 1 else None)
    return jax.jit(lambda params, batch: _next_token_loss(module, params, batch, _count_targets(batch))[0])


def _next_token_loss(module: LanguageModel, params: dict, batch: dict, targets: jax.Array) -> tuple[jax.Array, dict]:
    inputs = batch["tokens"], batch["positions"], batch["segment_ids"]
    hidden, head = module.apply({"params": params}, *inputs, method="hidden_and_head")
    # Rolling the targets and not slicing the states: lengths stay what the chunks divide.
    following = jnp.roll(batch["tokens"], -1, axis=-1)
    scores = score_targets(hidden, head, following, 1.0, module.config.logits_chunk)
    return next_token_loss(scores, batch["loss_mask"], batch["segment_ids"], targets)


def _count_targets(batch: dict) -> jax.Array:
    return count_targets(batch["loss_mask"], batch["segment_ids"])
