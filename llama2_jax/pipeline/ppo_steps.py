"""The gradient steps of PPO: of the policy by the clipped ratio, of the critic by the clipped error (section 3.2.3)."""

import functools

import jax.numpy as jnp
from jax.sharding import Mesh

from llama2_jax.inference.score import score_following
from llama2_jax.models.adapters import AdapterConfig
from llama2_jax.models.config import ModelConfig
from llama2_jax.objectives.ppo import policy_loss, value_loss
from llama2_jax.pipeline.model_training import build_model_step
from llama2_jax.training.optimizer import OptimizerConfig
from llama2_jax.training.step import TrainStep


@functools.lru_cache
def ppo_policy_step(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    clip: float,
    temperature: float,
    accumulation: int,
    mesh: Mesh,
    adapters: AdapterConfig | None = None,
) -> TrainStep:
    """Returns the compiled step of the policy on packed rollouts, in `accumulation` microbatches of their rows."""

    def loss(module, params, batch, counts):
        inputs = batch["tokens"], batch["positions"], batch["segment_ids"]
        logp = score_following(module, params, inputs, temperature).log_probability
        return policy_loss(logp, batch["log_probabilities"], batch["advantages"], batch["mask"], clip, counts["tokens"])

    return build_model_step("language", loss, _count_tokens, model, optimizer, mesh, accumulation, adapters=adapters)


@functools.lru_cache
def ppo_critic_step(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    clip: float,
    accumulation: int,
    mesh: Mesh,
    adapters: AdapterConfig | None = None,
) -> TrainStep:
    """Returns the compiled step of the critic on packed rollouts, in `accumulation` microbatches of their rows."""

    def loss(module, params, batch, counts):
        values = module.apply({"params": params}, batch["tokens"], batch["positions"], batch["segment_ids"])
        return value_loss(values, batch["values"], batch["returns"], batch["mask"], clip, counts["tokens"])

    return build_model_step("scalar", loss, _count_tokens, model, optimizer, mesh, accumulation, adapters=adapters)


def _count_tokens(batch: dict) -> dict:
    return {"tokens": jnp.maximum(jnp.sum(batch["mask"]), 1.0)}
