"""Which answers are decoded together, and where their prompts lie: with the devices whose rows continue them.

A prompt's keys and values are gigabytes a batch, and are never sent: a device takes in the prompts of its own rows. A
prompt whose samples are spread over several devices is taken in by each of them.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from llama2_jax.models.config import ModelConfig
from llama2_jax.sharding.mesh import data_parallel_size


@dataclasses.dataclass(frozen=True)
class PromptBatch:
    """The prompts of a batch, as `prefill_rows` takes them.

    Attributes:
      tokens: padded at the end; rows that hold no prompt have one token, which nobody reads.
      positions: 0, 1, ... along each prompt, -1 at padding.
      rows: for each row of the batch the prompt that it continues, by its place among those of the row's device.
    """

    tokens: Int[np.ndarray, "prompts length"]
    positions: Int[np.ndarray, "prompts length"]
    rows: Int[np.ndarray, "batch"]


def generation_batch_size(config: ModelConfig, mesh: Mesh | None) -> int:
    """How many answers are decoded together: the model's generation_rows, rounded up to what the mesh can split."""
    ways = data_parallel_size(mesh)
    return -(-config.generation_rows // ways) * ways


def batches(prompts: Sequence[Sequence[int]], samples_per_prompt: int, batch_size: int) -> Iterator[list[int]]:
    """The rows (prompt * samples_per_prompt + sample) of each batch, prompts of like length together."""
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    group_size = _group_size(samples_per_prompt, batch_size)
    for first in range(0, len(by_length), group_size):
        group = by_length[first : first + group_size]
        rows = [index * samples_per_prompt + sample for index in group for sample in range(samples_per_prompt)]
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]


def rows_of_prompts(samples_per_prompt: int, batch_size: int, mesh: Mesh | None) -> int:
    """How many rows the prompts of a batch take: as many for each device as the one with the most prompts needs."""
    used = min(_group_size(samples_per_prompt, batch_size) * samples_per_prompt, batch_size)
    owners = [row // samples_per_prompt for row in range(used)]
    ways = data_parallel_size(mesh)
    each = batch_size // ways
    return ways * max(len(set(owners[start : start + each])) for start in range(0, used, each))


def lay_out_prompts(
    prompts: Sequence[Sequence[int]], owners: Sequence[int], batch_size: int, rows: int, length: int, mesh: Mesh | None
) -> PromptBatch:
    """Puts each prompt where its rows are.

    Args:
      prompts: all prompts.
      owners: for each row of the batch that is used the prompt that it continues.
      batch_size: how many rows there are; those behind the used ones continue whatever lies there.
      rows: from `rows_of_prompts`.
      length: to which prompts are padded.
      mesh: over which rows and prompts are split.
    """
    ways = data_parallel_size(mesh)
    tokens, positions = np.zeros((rows, length), np.int32), np.full((rows, length), -1, np.int32)
    positions[:, 0] = 0
    places = np.zeros((ways, batch_size // ways), np.int32)
    for way in range(ways):
        here = owners[way * places.shape[1] : (way + 1) * places.shape[1]]
        # Where there is room for it each row has its own, so that nothing need be copied afterwards.
        held = here if rows == batch_size else list(dict.fromkeys(here))
        for place, owner in enumerate(held):
            row, size = way * rows // ways + place, len(prompts[owner])
            tokens[row, :size], positions[row, :size] = prompts[owner], np.arange(size)
        places[way, : len(here)] = range(len(here)) if rows == batch_size else [held.index(owner) for owner in here]
    return PromptBatch(tokens, positions, places.ravel())


def _group_size(samples_per_prompt: int, batch_size: int) -> int:
    """How many prompts share a batch."""
    return max(1, batch_size // samples_per_prompt)
