"""The gradient steps of PPO: of the policy by the clipped ratio, of the critic by the clipped error (section 3.2.3)."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh

from llama2_jax.inference.score import score_following
from llama2_jax.models.adapters import AdapterConfig
from llama2_jax.models.config import ModelConfig
from llama2_jax.objectives.next_token import count_targets, next_token_loss
from llama2_jax.objectives.ppo import kl_penalty, policy_loss, value_loss
from llama2_jax.pipeline.model_training import build_model_step
from llama2_jax.training.optimizer import OptimizerConfig
from llama2_jax.training.step import TrainStep


class PolicyObjective(NamedTuple):
    """What of the policy's loss a config sets.

    Attributes:
      clip: of the ratio.
      temperature: of the policy, at which it was sampled.
      kl_coefficient: of the KL to the reference in the loss; 0 where it is in the rewards.
      pretraining_coefficient: gamma of PPO-ptx, the weight of the next-token loss on text (InstructGPT, equation 2); 0
        where batches have no text.
    """

    clip: float
    temperature: float
    kl_coefficient: float = 0.0
    pretraining_coefficient: float = 0.0


@functools.lru_cache
def ppo_policy_step(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    objective: PolicyObjective,
    accumulation: int,
    mesh: Mesh,
    adapters: AdapterConfig | None = None,
) -> TrainStep:
    """Returns the compiled step of the policy on packed rollouts, in `accumulation` microbatches of their rows.

    With a `pretraining_coefficient` the batch has rows of text too (pretraining_mix.py): the loss is PPO's, the mean
    over the answers' tokens, plus the coefficient times the next-token loss, the mean over the text's tokens.
    """
    clip, temperature, kl_coefficient, gamma = objective

    def loss(module, params, batch, counts):
        inputs = batch["tokens"], batch["positions"], batch["segment_ids"]
        # Text is predicted at temperature 1, whatever the policy is sampled at.
        at = jnp.where(batch["text_mask"] > 0, 1.0, temperature) if gamma else temperature
        scores = score_following(module, params, inputs, at)
        logp, mask = scores.log_probability, batch["mask"]
        total, metrics = policy_loss(
            logp, batch["log_probabilities"], batch["advantages"], mask, clip, counts["tokens"]
        )
        if kl_coefficient:
            metrics["reference_kl"] = kl_penalty(logp, batch["reference"], mask, counts["tokens"])
            total += kl_coefficient * metrics["reference_kl"]
        if gamma:
            text_loss, _ = next_token_loss(scores, batch["text_mask"], batch["segment_ids"], counts["text"])
            metrics["pretraining_loss"] = text_loss
            total += gamma * text_loss
        return total, metrics

    def count(batch):
        text = {"text": count_targets(batch["text_mask"], batch["segment_ids"])} if gamma else {}
        return {**_count_tokens(batch), **text}

    return build_model_step("language", loss, count, model, optimizer, mesh, accumulation, adapters=adapters)


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
