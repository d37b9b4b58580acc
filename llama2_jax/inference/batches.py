"""Batches of answers, with each prompt on the devices whose rows continue it.

The keys and values of a batch's prompts take gigabytes and are never sent: a device prefills the prompts of its own
rows. If a prompt's samples are spread over several devices, each of them prefills it.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from llama2_jax.models.config import ModelConfig
from llama2_jax.sharding.mesh import data_parallel_size

# At least so many rows, since each number of rows is a program to compile. Chosen, not tuned.
FEWEST_ROWS = 32


@dataclasses.dataclass(frozen=True)
class PromptBatch:
    """The prompts of a batch, as `prefill_rows` takes them.

    Attributes:
      tokens: padded at the end; unused entries have one token, which is ignored.
      positions: 0, 1, ... along each prompt, -1 at padding.
      prompt_index: for each row of the batch the prompt that it continues, counted among the prompts of its device.
    """

    tokens: Int[np.ndarray, "prompts length"]
    positions: Int[np.ndarray, "prompts length"]
    prompt_index: Int[np.ndarray, " batch"]


def generation_batch_size(config: ModelConfig, mesh: Mesh | None, answers: int | None = None) -> int:
    """Returns how many answers are decoded together: generation_rows, rounded up to what the mesh can split.

    Of few `answers`, no more than the next power of two, so that few programs are compiled.
    """
    groups, rows = data_parallel_size(mesh), config.generation_rows
    if answers is not None:
        rows = min(rows, max(FEWEST_ROWS, 1 << (answers - 1).bit_length()))
    return -(-rows // groups) * groups


def batches(prompts: Sequence[Sequence[int]], samples_per_prompt: int, batch_size: int) -> Iterator[list[int]]:
    """Yields the answers (prompt * samples_per_prompt + sample) of each batch, prompts of similar length together."""
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    prompts_per_batch = _prompts_per_batch(samples_per_prompt, batch_size)
    for first in range(0, len(by_length), prompts_per_batch):
        group = by_length[first : first + prompts_per_batch]
        answers = [index * samples_per_prompt + sample for index in group for sample in range(samples_per_prompt)]
        for start in range(0, len(answers), batch_size):
            yield answers[start : start + batch_size]


def prompt_batch_size(samples_per_prompt: int, batch_size: int, mesh: Mesh | None) -> int:
    """Returns how many prompts are prefilled for a batch: on each device as many as the fullest one needs."""
    used = min(_prompts_per_batch(samples_per_prompt, batch_size) * samples_per_prompt, batch_size)
    row_prompts = [row // samples_per_prompt for row in range(used)]
    groups = data_parallel_size(mesh)
    group_rows = batch_size // groups
    return groups * max(len(set(row_prompts[start : start + group_rows])) for start in range(0, used, group_rows))


def make_prompt_batch(
    prompts: Sequence[Sequence[int]],
    row_prompts: Sequence[int],
    batch_size: int,
    prompt_rows: int,
    length: int,
    mesh: Mesh | None,
) -> PromptBatch:
    """Puts each prompt on the devices of its rows.

    Args:
      prompts: all prompts.
      row_prompts: for each used row of the batch the prompt that it continues.
      batch_size: the number of rows; unused rows at the end continue an arbitrary prompt.
      prompt_rows: from `prompt_batch_size`.
      length: to which prompts are padded.
      mesh: over which rows and prompts are split.
    """
    groups = data_parallel_size(mesh)
    tokens, positions = np.zeros((prompt_rows, length), np.int32), np.full((prompt_rows, length), -1, np.int32)
    positions[:, 0] = 0
    group_rows = batch_size // groups
    prompt_index = np.zeros((groups, group_rows), np.int32)
    for group in range(groups):
        wanted = row_prompts[group * group_rows : (group + 1) * group_rows]
        # With a prompt row for each row, none is shared and the cache need not be copied afterwards.
        stored = wanted if prompt_rows == batch_size else list(dict.fromkeys(wanted))
        for index, prompt in enumerate(stored):
            row, size = group * prompt_rows // groups + index, len(prompts[prompt])
            tokens[row, :size], positions[row, :size] = prompts[prompt], np.arange(size)
        prompt_index[group, : len(wanted)] = (
            range(len(wanted)) if prompt_rows == batch_size else [stored.index(prompt) for prompt in wanted]
        )
    return PromptBatch(tokens, positions, prompt_index.ravel())


def _prompts_per_batch(samples_per_prompt: int, batch_size: int) -> int:
    """Returns how many prompts share a batch."""
    return max(1, batch_size // samples_per_prompt)
