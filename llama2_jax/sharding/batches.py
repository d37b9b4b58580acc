"""A batch of the host on the devices: rows split over them, whichever process has which devices."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llama2_jax.sharding.mesh import batch_sharding, data_parallel_size


def shard_batch(batch: dict, mesh: Mesh) -> dict:
    """Puts a host batch on the devices: rows split over them if they divide, else whole on each.

    Of stacked microbatches, [accumulation, rows, ...], each one's rows are split and not the microbatches. All
    processes pass the same batch; each puts on its own devices what belongs there.
    """
    stacked = np.ndim(batch["tokens"]) == 3

    def put(array: np.ndarray) -> jax.Array:
        sharding = batch_array_sharding(array.shape, mesh, stacked)
        return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

    return {name: put(np.asarray(array)) for name, array in batch.items()}


def shard_rows(batch: dict, mesh: Mesh, accumulation: int = 1) -> dict:
    """Puts a batch of a language model, rows of packed tokens, on the devices; see `splittable_rows`.

    Empty rows are added to it. They have no targets, so loss and gradients are those of the batch.
    """
    rows = len(batch["tokens"])
    added = splittable_rows(rows, mesh, accumulation) - rows
    if added:
        batch = {name: np.pad(array, ((0, added), (0, 0))) for name, array in batch.items()}
    return shard_batch(batch, mesh)


def splittable_rows(rows: int, mesh: Mesh, accumulation: int = 1) -> int:
    """Returns how many rows each batch of `rows` has on the mesh: as many more as let it split every microbatch."""
    multiple = data_parallel_size(mesh) * accumulation
    return -(-rows // multiple) * multiple


def batch_array_sharding(shape: tuple[int, ...], mesh: Mesh, stacked: bool = False) -> NamedSharding:
    """Returns the sharding of an array of a batch, [rows, ...] or, stacked, [accumulation, rows, ...]."""
    if shape[int(stacked)] % data_parallel_size(mesh):
        return NamedSharding(mesh, PartitionSpec())
    return batch_sharding(mesh, stacked)
