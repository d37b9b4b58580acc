"""One batch of PPO experience (section 3.2.3): sampled answers with their rewards, values and advantages.

Everything is by token of the answer: arrays [answers, length], right-padded, valid where `mask` says so.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.inference.score import response_log_probabilities, values
from llama2_jax.models.config import ModelConfig
from llama2_jax.objectives.advantages import generalized_advantages
from llama2_jax.objectives.rewards import apply_missing_eos_penalty, per_token_rewards, whiten
from llama2_jax.pipeline.reward_models import RewardModels, Scores
from llama2_jax.text.packing import pack


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Experience of one iteration.

    Attributes:
      prompts: token ids of each prompt.
      responses: token ids of each answer, the EOS included where it ended.
      log_probabilities, advantages, returns, values, mask: float32 [answers, length].
      metrics: what the iteration's row of metrics.jsonl says of them.
    """

    prompts: Sequence[Sequence[int]]
    responses: Sequence[np.ndarray]
    log_probabilities: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray
    values: np.ndarray
    mask: np.ndarray
    metrics: dict[str, float]

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
            for name in ("log_probabilities", "advantages", "returns", "values", "mask"):
                field = np.zeros(len(tokens), np.float32)
                field[start:stop] = getattr(self, name)[index, : len(response)]
                fields[name] = field
            sequences.append(fields)
        return pack(sequences, length, row_multiple).arrays


def collect(
    config: ConfigDict,
    model: ModelConfig,
    policy: dict,
    reference: dict,
    critic: dict,
    reward_models: RewardModels,
    prompts: Sequence[Sequence[int]],
    safety_prompts: Sequence[bool],
    key: jax.Array,
    eos_id: int,
) -> Rollouts:
    """Samples an answer to each prompt from the policy and works out what PPO needs of it."""
    responses, finished, scores = answer_and_score(
        config, model, policy, reward_models, prompts, safety_prompts, key, eos_id
    )
    old = _padded(response_log_probabilities(model, policy, prompts, responses, config.temperature))
    frozen = _padded(response_log_probabilities(model, reference, prompts, responses, config.temperature))
    value = _padded(values(model, critic, prompts, responses))
    lengths = np.asarray([len(response) for response in responses])
    mask = (np.arange(old.shape[1]) < lengths[:, None]).astype(np.float32)
    whitened = whiten(scores.logit, np.ones(len(prompts), bool))
    whitened = apply_missing_eos_penalty(whitened, finished, config.missing_eos_penalty)
    rewards = per_token_rewards(whitened, old, frozen, mask, lengths - 1, config.kl_coefficient)
    advantages, returns = generalized_advantages(rewards, value, mask, config.gamma, config.lambda_)
    explained = 1 - np.var((returns - value)[mask > 0]) / max(np.var(np.asarray(returns)[mask > 0]), 1e-8)
    if config.whiten_advantages:
        advantages = whiten(advantages, mask)
    kl = ((old - frozen) * mask).sum(axis=1)
    return Rollouts(
        prompts=prompts,
        responses=responses,
        log_probabilities=old,
        advantages=np.asarray(advantages),
        returns=np.asarray(returns),
        values=value,
        mask=mask,
        metrics={
            "reward": float(scores.combined.mean()),
            "reward_logit": float(scores.logit.mean()),
            "reward_helpfulness": float(scores.helpfulness.mean()),
            "reward_safety": float(scores.safety.mean()),
            "kl": float(kl.mean()),
            "kl_per_token": float(kl.sum() / mask.sum()),
            "answer_tokens": float(lengths.mean()),
            "finished": float(finished.mean()),
            "explained_variance": float(explained),
        },
    )


def answer_and_score(
    config: ConfigDict,
    model: ModelConfig,
    policy: dict,
    reward_models: RewardModels,
    prompts: Sequence[Sequence[int]],
    safety_prompts: Sequence[bool],
    key: jax.Array,
    eos_id: int,
) -> tuple[list[np.ndarray], np.ndarray, Scores]:
    """Samples an answer to each prompt: the answers' ids, whether each ended, and the reward models' scores."""
    samples = generate(
        model, policy, prompts, Sampling(config.temperature, 1.0, config.max_new_tokens), key=key, eos_id=eos_id
    )
    responses = [sample.tokens for sample in samples]
    sequences = [np.concatenate([prompt, response]) for prompt, response in zip(prompts, responses, strict=True)]
    finished = np.asarray([sample.finished for sample in samples])
    return responses, finished, reward_models.score(sequences, safety_prompts)


def _padded(rows: Sequence[np.ndarray], multiple: int = 32) -> np.ndarray:
    """Ragged rows as one array, padded to a multiple so that few shapes are compiled."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    array = np.zeros((len(rows), length), np.float32)
    for index, row in enumerate(rows):
        array[index, : len(row)] = row
    return array
