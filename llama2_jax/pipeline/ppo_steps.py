"""The gradient steps of PPO: of the policy by the clipped ratio, of the critic by the clipped error (section 3.2.3)."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jax.sharding import Mesh

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.heads import build_model
from llama2_jax.models.llama import parameter_shardings
from llama2_jax.objectives.ppo import policy_loss, value_loss
from llama2_jax.objectives.target_scores import score_targets
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.step import build_train_step


@functools.lru_cache
def ppo_policy_step(
    model: ModelConfig, optimizer: OptimizerConfig, clip: float, temperature: float, mesh: Mesh
) -> Callable:
    """The compiled step of the policy on packed rollouts."""
    module = build_model(model, "language", mesh)

    def loss(params, batch, counts):
        inputs = batch["tokens"], batch["positions"], batch["segment_ids"]
        hidden, head = module.apply({"params": params}, *inputs, method="hidden_and_head")
        following = jnp.roll(batch["tokens"], -1, axis=-1)
        logp = score_targets(hidden, head, following, temperature, model.logits_chunk).log_probability
        return policy_loss(logp, batch["log_probabilities"], batch["advantages"], batch["mask"], clip, counts["tokens"])

    return build_train_step(loss, _count_tokens, make_optimizer(optimizer), shardings=parameter_shardings(module, mesh))


@functools.lru_cache
def ppo_critic_step(model: ModelConfig, optimizer: OptimizerConfig, clip: float, mesh: Mesh) -> Callable:
    """The compiled step of the critic on packed rollouts."""
    module = build_model(model, "scalar", mesh)

    def loss(params, batch, counts):
        values = module.apply({"params": params}, batch["tokens"], batch["positions"], batch["segment_ids"])
        return value_loss(values, batch["values"], batch["returns"], batch["mask"], clip, counts["tokens"])

    return build_train_step(loss, _count_tokens, make_optimizer(optimizer), shardings=parameter_shardings(module, mesh))


def _count_tokens(batch: dict) -> dict:
    return {"tokens": jnp.maximum(jnp.sum(batch["mask"]), 1.0)}
