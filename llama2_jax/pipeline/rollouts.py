"""One batch of PPO experience (section 3.2.3): sampled answers with their rewards and advantages.

Advantages are a critic's, whose values then are there too, or those of a group: several answers to each prompt,
compared with each other.

Everything is by token of the answer: arrays [answers, length], right-padded, valid where `mask` says so.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sample, Sampling
from llama2_jax.inference.score import response_log_probabilities, values
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import Params
from llama2_jax.objectives.advantages import generalized_advantages, group_advantages
from llama2_jax.objectives.rewards import apply_missing_eos_penalty, per_token_rewards, whiten, whiten_by_tag
from llama2_jax.pipeline.ppo_guards import mean_difference
from llama2_jax.pipeline.ppo_schedule import has_critic
from llama2_jax.pipeline.reward_models import RewardModels, Scores
from llama2_jax.pipeline.sampling import Policy, sample_answers
from llama2_jax.text.packing import pack
from llama2_jax.text.tokenizer import Tokenizer

# What the steps read of each token: the policy's, and what else comes with how advantages are estimated.
POLICY_FIELDS = ("log_probabilities", "advantages", "mask")
CRITIC_FIELDS = ("returns", "values")
GROUP_FIELDS = ("reference",)


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Experience of one iteration.

    Attributes:
      prompts: token ids of each answer's prompt.
      responses: token ids of each answer, the EOS included where it ended.
      log_probabilities, advantages, mask: float32 [answers, length].
      metrics: what the iteration's row of metrics.jsonl says of them.
      returns, values: float32 [answers, length], with a critic alone.
      reference: float32 [answers, length], log-probabilities under the reference, without a critic alone.
    """

    prompts: Sequence[Sequence[int]]
    responses: Sequence[np.ndarray]
    log_probabilities: np.ndarray
    advantages: np.ndarray
    mask: np.ndarray
    metrics: dict[str, float]
    returns: np.ndarray | None = None
    values: np.ndarray | None = None
    reference: np.ndarray | None = None

    @property
    def longest(self) -> int:
        """The tokens of the longest prompt with its answer."""
        return max(len(prompt) + len(response) for prompt, response in zip(self.prompts, self.responses, strict=True))

    def minibatches(
        self, order: Sequence[int], size: int, length: int, row_multiple: int
    ) -> list[dict[str, np.ndarray]]:
        """The answers in this order as minibatches of `size`, each packed into rows [rows, length] (`minibatch`).

        All have as many rows as the one that needs most: one compiled program serves them.
        """
        parts = [self.minibatch(order[at : at + size], length, row_multiple) for at in range(0, len(order), size)]
        rows = max(len(part["tokens"]) for part in parts)
        return [
            {name: np.pad(array, ((0, rows - len(array)), (0, 0))) for name, array in part.items()} for part in parts
        ]

    def minibatch(self, selected: Sequence[int], length: int, row_multiple: int = 8) -> dict[str, np.ndarray]:
        """The selected answers packed into rows, [rows, length] each; the rows are a multiple of `row_multiple`.

        What belongs to an answer's token stands where that token is predicted, one position before it.
        """
        sequences = []
        for index in selected:
            prompt, response = self.prompts[index], self.responses[index]
            tokens = np.concatenate([prompt, response]).astype(np.int32)
            start, stop = len(prompt) - 1, len(prompt) - 1 + len(response)
            fields = {"tokens": tokens}
            for name in POLICY_FIELDS + CRITIC_FIELDS + GROUP_FIELDS:
                if (of_answers := getattr(self, name)) is not None:
                    fields[name] = np.zeros(len(tokens), np.float32)
                    fields[name][start:stop] = of_answers[index, : len(response)]
            sequences.append(fields)
        return pack(sequences, length, row_multiple).arrays


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What does not change while PPO runs.

    Attributes:
      model: the network of all models.
      reference: the parameters of the policy that PPO starts from, which the KL is measured against.
      reward_models: the two reward models, and the reward made of their scores.
      tokenizer: the tokenizer of all models.
    """

    model: ModelConfig
    reference: Params
    reward_models: RewardModels
    tokenizer: Tokenizer


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Prompts to answer: records with `messages` and `safety`, and their token ids."""

    records: Sequence[Mapping]
    ids: Sequence[Sequence[int]]

    def repeated(self, times: int) -> "Prompts":
        """Returns each prompt so many times, one after the other."""
        return Prompts(*([one for one in field for _ in range(times)] for field in (self.records, self.ids)))


def token_fields(config: ConfigDict) -> tuple[str, ...]:
    """Returns the names of the numbers that a minibatch has of each token."""
    return POLICY_FIELDS + (CRITIC_FIELDS if has_critic(config) else GROUP_FIELDS)


def collect(
    config: ConfigDict, frozen: Frozen, policy: Params, critic: Params | None, prompts: Prompts, key: jax.Array
) -> Rollouts:
    """Samples answers to each prompt from the policy and computes what PPO needs of them (equations 3 and 4).

    Args:
      config: the stage's; `samples_per_prompt` answers are sampled to each prompt, and are neighbours.
      frozen: what does not change.
      policy: the parameters that answer.
      critic: those that estimate values; None where answers are compared in groups.
      prompts: a batch of them.
      key: the randomness.
    """
    samples, scores = answer_and_score(config, frozen, policy, prompts, key, config.samples_per_prompt)
    prompts = prompts.repeated(config.samples_per_prompt)
    responses, finished = [sample.tokens for sample in samples], np.asarray([sample.finished for sample in samples])
    scored = prompts.ids, responses
    old = _padded(response_log_probabilities(frozen.model, policy, *scored, config.temperature))
    reference = _padded(response_log_probabilities(frozen.model, frozen.reference, *scored, config.temperature))
    sampled = _padded([sample.sampling_logps for sample in samples])
    lengths = np.asarray([len(response) for response in responses])
    mask = (np.arange(old.shape[1]) < lengths[:, None]).astype(np.float32)
    if config.whiten_by_tag:
        whitened = whiten_by_tag(scores.logit, np.asarray([record["safety"] for record in prompts.records]))
    else:
        whitened = whiten(scores.logit, np.ones(len(responses), bool))
    whitened = apply_missing_eos_penalty(whitened, finished, config.missing_eos_penalty)
    if has_critic(config):
        rewards = per_token_rewards(whitened, old, reference, mask, lengths - 1, config.kl_coefficient)
        estimated, metrics = _by_critic(config, rewards, _padded(values(frozen.model, critic, *scored)), mask)
    else:
        estimated, metrics = _by_group(config, whitened, reference, mask)
    kl = ((old - reference) * mask).sum(axis=1)
    return Rollouts(
        prompts=prompts.ids,
        responses=responses,
        log_probabilities=old,
        mask=mask,
        **estimated,
        metrics={
            "reward": float(scores.combined.mean()),
            "reward_logit": float(scores.logit.mean()),
            "reward_helpfulness": float(scores.helpfulness.mean()),
            "reward_safety": float(scores.safety.mean()),
            "kl": float(kl.mean()),
            "kl_per_token": float(kl.sum() / mask.sum()),
            # 0 but for rounding: in every iteration the one, before the first step the other (ppo_guards.py).
            "sampler_log_ratio_abs": mean_difference(old, sampled, mask),
            "reference_log_ratio_abs": mean_difference(old, reference, mask),
            "answer_tokens": float(lengths.mean()),
            "finished": float(finished.mean()),
            **metrics,
        },
    )


def _by_critic(
    config: ConfigDict, rewards: jax.Array, value: np.ndarray, mask: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns the fields of `Rollouts` that a critic's values give, and the metrics of them."""
    advantages, returns = generalized_advantages(rewards, value, mask, config.gamma, config.lambda_)
    explained = 1 - np.var((returns - value)[mask > 0]) / max(np.var(np.asarray(returns)[mask > 0]), 1e-8)
    if config.whiten_advantages:
        advantages = whiten(advantages, mask)
    fields = {"advantages": np.asarray(advantages), "returns": np.asarray(returns), "values": value}
    return fields, {"explained_variance": float(explained)}


def _by_group(
    config: ConfigDict, scores: jax.Array, reference: np.ndarray, mask: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns the fields of `Rollouts` that comparing the answers to a prompt gives, and the metrics of them."""
    advantages = group_advantages(scores, mask, config.samples_per_prompt, config.group_scale)
    deviations = np.std(np.asarray(scores, np.float64).reshape(-1, config.samples_per_prompt), axis=1)
    # Groups whose answers all have the same reward teach nothing.
    metrics = {"group_deviation": float(deviations.mean()), "equal_groups": float(np.mean(deviations < 1e-6))}
    return {"advantages": np.asarray(advantages), "reference": reference}, metrics


def answer_and_score(
    config: ConfigDict, frozen: Frozen, policy: Params, prompts: Prompts, key: jax.Array, samples_per_prompt: int = 1
) -> tuple[list[Sample], Scores]:
    """Samples answers to each prompt; returns the answers and the reward models' scores of them.

    The reward function gets a row for each answer: the prompt's record with `response` (text), `tokens` (ids of prompt
    and answer) and `finished`.
    """
    answering = Policy(frozen.model, policy, frozen.tokenizer)
    # Nothing is cut off: the objective's own distribution.
    sampling = Sampling(config.temperature, 1.0, config.max_new_tokens)
    samples = sample_answers(answering, prompts.ids, sampling, key, samples_per_prompt)
    asked = prompts.repeated(samples_per_prompt)
    rows = [
        {
            **record,
            "response": frozen.tokenizer.decode(sample.tokens),
            "tokens": [*prompt, *sample.tokens.tolist()],
            "finished": bool(sample.finished),
        }
        for record, prompt, sample in zip(asked.records, asked.ids, samples, strict=True)
    ]
    return samples, frozen.reward_models.score(rows)


def _padded(rows: Sequence[np.ndarray], multiple: int = 32) -> np.ndarray:
    """Ragged rows as one array, padded to a multiple so that few shapes are compiled."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    array = np.zeros((len(rows), length), np.float32)
    for index, row in enumerate(rows):
        array[index, : len(row)] = row
    return array
