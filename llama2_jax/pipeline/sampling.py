"""Answers sampled from a model for a stage, saved as they are made."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from etils import epath

from llama2_jax.inference.generate import Sample, Sampling, generate
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import Params
from llama2_jax.pipeline.resumable import map_resumable, shard_size
from llama2_jax.pipeline.runtime import Runtime
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.model_folder import load_model


@dataclasses.dataclass(frozen=True)
class Policy:
    """A language model that answers: the network, its parameters and its tokenizer."""

    model: ModelConfig
    params: Params
    tokenizer: Tokenizer


def load_policy(folder: epath.Path, tokenizer: Tokenizer, runtime: Runtime) -> Policy:
    """Loads the language model of an earlier stage."""
    return Policy(runtime.model, load_model(folder, runtime.mesh, "language").params, tokenizer)


def sample_answers(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    key: jax.Array,
    samples_per_prompt: int = 1,
    prompt_ids: Sequence[int] | None = None,
) -> list[Sample]:
    """Samples answers to prompts (token ids); see `generate`."""
    return generate(
        policy.model,
        policy.params,
        prompts,
        sampling,
        key,
        policy.tokenizer.end_id,
        samples_per_prompt=samples_per_prompt,
        prompt_ids=prompt_ids,
    )


def sample_resumable(
    name: str,
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    key: jax.Array,
    rows: Callable[[slice, list[Sample]], list[dict]],
    runtime: Runtime,
    samples_per_prompt: int = 1,
) -> list[dict]:
    """Samples answers to all prompts and returns a row for each prompt, saved shard by shard (resumable.py).

    Args:
      name: of the work, unique within the stage.
      policy: what answers.
      prompts: token ids, which leave room for sampling.max_new_tokens (`encoding.read_prompts`).
      sampling: how tokens are chosen; its temperature may be one for each prompt.
      key: the randomness, with each prompt's index.
      rows: `rows(shard, samples)` makes of the samples to prompts[shard] a JSON-serialisable row for each prompt.
      runtime: the stage's.
      samples_per_prompt: answers to each prompt, which are neighbours in `samples`.
    """

    def sample_shard(first: int, stop: int) -> list[dict]:
        shard = slice(first, stop)
        samples = sample_answers(
            policy, prompts[shard], _of_shard(sampling, shard), key, samples_per_prompt, range(first, stop)
        )
        return rows(shard, samples)

    return map_resumable(name, len(prompts), sample_shard, runtime, shard_size(runtime, samples_per_prompt))


def _of_shard(sampling: Sampling, shard: slice) -> Sampling:
    if np.ndim(sampling.temperature) == 0:
        return sampling
    return dataclasses.replace(sampling, temperature=tuple(sampling.temperature[shard]))
