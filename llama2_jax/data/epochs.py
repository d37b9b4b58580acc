"""Batches of several epochs: their order, their number, and an iterator that resumes after any batch."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator

import grain
import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches whose number is known.

    `iter()` returns a Grain iterator that resumes after any batch with `get_state()`, which is JSON, and `set_state()`.

    Attributes:
      dataset: the Grain dataset.
      steps_per_epoch: how many batches each epoch has.
    """

    dataset: grain.IterDataset
    steps_per_epoch: tuple[int, ...]

    def __iter__(self) -> Iterator:
        return iter(self.dataset)


def steps_in(batches: Batches) -> int:
    """Returns the number of batches of all epochs, for a learning-rate schedule."""
    return sum(batches.steps_per_epoch)


def batches_by_number(make: Callable[[int], object], steps_per_epoch: tuple[int, ...]) -> Batches:
    """Returns batches that are computed from their number, 0, 1, .. through all epochs."""
    numbers = grain.MapDataset.range(sum(steps_per_epoch))
    # One thread and a few batches ahead: making a batch is array work, which more threads would not speed up.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return Batches(numbers.map(make).to_iter_dataset(options), steps_per_epoch)


def shuffled(count: int, seed: int, *purpose: object) -> Int[np.ndarray, " count"]:
    """Returns 0 .. count - 1 in an order that depends on the seed and the purpose (such as an epoch)."""
    return generator(seed, *purpose).permutation(count)


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """Returns a random generator for a purpose, the same in every process."""
    return np.random.default_rng([derived_seed(seed, *purpose)])


def derived_seed(seed: int, *purpose: object) -> int:
    """Returns a seed for a purpose, 0 to 2**32 - 1."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()[:4], "big")
