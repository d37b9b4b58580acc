"""Batches of prompts for rejection sampling and PPO."""

from collections.abc import Sequence
from typing import Any

import grain

from llama2_jax.data.epochs import derived_seed


def prompt_batches(prompts: Sequence[Any], batch_size: int, seed: int) -> grain.IterDataset:
    """Returns endless batches of prompts, reshuffled in each epoch.

    Args:
      prompts: records, or values made from them; they are returned unchanged.
      batch_size: prompts a batch. If an epoch ends within a batch, the next one begins in it.
      seed: determines the order.

    Returns:
      A Grain dataset of lists. Its iterator's state is JSON.

    Raises:
      ValueError: if there are no prompts, or batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: wanted at least 1 prompt")
    if not prompts:
        raise ValueError("there are no prompts to make batches of")
    order = grain.MapDataset.range(len(prompts)).shuffle(derived_seed(seed, "prompts")).repeat()
    in_memory = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    indices = order.to_iter_dataset(in_memory).batch(batch_size, drop_remainder=False, batch_fn=list)
    return indices.map(lambda batch: [prompts[index] for index in batch])
