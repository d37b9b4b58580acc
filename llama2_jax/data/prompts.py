"""Batches of prompts for rejection sampling and PPO."""

from collections.abc import Sequence
from typing import Any

import grain

from llama2_jax.data.epochs import derived_seed


def prompt_batches(
    prompts: Sequence[Any],
    batch_size: int,
    seed: int,
    *,
    epochs: int | None = None,
) -> grain.IterDataset:
    """Lists of prompts, shuffled anew in each pass.

    Args:
      prompts: records, or what was made of them; given back as they are.
      batch_size: prompts a batch. Where an epoch ends within a batch, the next one begins in it.
      seed: decides the order.
      epochs: passes over the prompts; None for no end. At the end the last batch may be short.

    Returns:
      A Grain dataset of lists. Its iterator's state is JSON.

    Raises:
      ValueError: if there are no prompts, or none in a batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: wanted at least 1 prompt")
    if not prompts:
        raise ValueError("there are no prompts to make batches of")
    order = grain.MapDataset.range(len(prompts)).shuffle(derived_seed(seed, "prompts")).repeat(epochs)
    in_memory = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    numbers = order.to_iter_dataset(in_memory).batch(batch_size, drop_remainder=False, batch_fn=list)
    return numbers.map(lambda batch: [prompts[index] for index in batch])
