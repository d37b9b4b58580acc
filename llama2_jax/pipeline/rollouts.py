"""One batch of PPO experience (section 3.2.3): sampled answers with their rewards, values and advantages.

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
from llama2_jax.objectives.advantages import generalized_advantages
from llama2_jax.objectives.rewards import apply_missing_eos_penalty, per_token_rewards, whiten
from llama2_jax.pipeline.ppo_guards import mean_difference
from llama2_jax.pipeline.reward_models import RewardModels, Scores
from llama2_jax.pipeline.sampling import Policy, sample_answers
from llama2_jax.text.packing import pack
from llama2_jax.text.tokenizer import Tokenizer


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


def collect(
    config: ConfigDict, frozen: Frozen, policy: Params, critic: Params, prompts: Prompts, key: jax.Array
) -> Rollouts:
    """Samples an answer to each prompt from the policy and computes what PPO needs of it (equations 3 and 4)."""
    samples, scores = answer_and_score(config, frozen, policy, prompts, key)
    responses, finished = [sample.tokens for sample in samples], np.asarray([sample.finished for sample in samples])
    scored = prompts.ids, responses
    old = _padded(response_log_probabilities(frozen.model, policy, *scored, config.temperature))
    reference = _padded(response_log_probabilities(frozen.model, frozen.reference, *scored, config.temperature))
    sampled = _padded([sample.sampling_logps for sample in samples])
    value = _padded(values(frozen.model, critic, *scored))
    lengths = np.asarray([len(response) for response in responses])
    mask = (np.arange(old.shape[1]) < lengths[:, None]).astype(np.float32)
    whitened = whiten(scores.logit, np.ones(len(responses), bool))
    whitened = apply_missing_eos_penalty(whitened, finished, config.missing_eos_penalty)
    rewards = per_token_rewards(whitened, old, reference, mask, lengths - 1, config.kl_coefficient)
    advantages, returns = generalized_advantages(rewards, value, mask, config.gamma, config.lambda_)
    explained = 1 - np.var((returns - value)[mask > 0]) / max(np.var(np.asarray(returns)[mask > 0]), 1e-8)
    if config.whiten_advantages:
        advantages = whiten(advantages, mask)
    kl = ((old - reference) * mask).sum(axis=1)
    return Rollouts(
        prompts=prompts.ids,
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
            # 0 but for rounding: in every iteration the one, before the first step the other (ppo_guards.py).
            "sampler_log_ratio_abs": mean_difference(old, sampled, mask),
            "reference_log_ratio_abs": mean_difference(old, reference, mask),
            "answer_tokens": float(lengths.mean()),
            "finished": float(finished.mean()),
            "explained_variance": float(explained),
        },
    )


def answer_and_score(
    config: ConfigDict, frozen: Frozen, policy: Params, prompts: Prompts, key: jax.Array
) -> tuple[list[Sample], Scores]:
    """Samples an answer to each prompt; returns the answers and the reward models' scores of them.

    The reward function gets a row for each answer: the prompt's record with `response` (text), `tokens` (ids of prompt
    and answer) and `finished`.
    """
    answering = Policy(frozen.model, policy, frozen.tokenizer)
    # Nothing is cut off: the objective's own distribution.
    sampling = Sampling(config.temperature, 1.0, config.max_new_tokens)
    samples = sample_answers(answering, prompts.ids, sampling, key)
    rows = [
        {
            **record,
            "response": frozen.tokenizer.decode(sample.tokens),
            "tokens": [*prompt, *sample.tokens.tolist()],
            "finished": bool(sample.finished),
        }
        for record, prompt, sample in zip(prompts.records, prompts.ids, samples, strict=True)
    ]
    return samples, frozen.reward_models.score(rows)


def _padded(rows: Sequence[np.ndarray], multiple: int = 32) -> np.ndarray:
    """Ragged rows as one array, padded to a multiple so that few shapes are compiled."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    array = np.zeros((len(rows), length), np.float32)
    for index, row in enumerate(rows):
        array[index, : len(row)] = row
    return array
