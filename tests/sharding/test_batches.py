"""A batch of the host on the devices."""

import numpy as np
import pytest

from llama2_jax.sharding.batches import shard_batch, shard_rows, splittable_rows
from llama2_jax.sharding.mesh import batch_sharding, make_mesh


def test_rows_are_split_over_the_devices_where_they_divide():
    mesh = make_mesh(data=-1, fsdp=1)
    batch = {"tokens": np.arange(32, dtype=np.int32).reshape(16, 2), "margin": np.arange(3, dtype=np.float32)}
    placed = shard_batch(batch, mesh)
    assert placed["tokens"].sharding.is_equivalent_to(batch_sharding(mesh), 2)
    assert placed["margin"].sharding.is_fully_replicated
    for name in batch:
        np.testing.assert_array_equal(placed[name], batch[name])


@pytest.mark.parametrize("rows", [16, 12], ids=["split", "whole on each"])
def test_the_parts_of_two_processes_make_up_the_batch(rows):
    """Of eight devices each process has four; it is asked for no rows but those of its own."""
    mesh = make_mesh(data=2, fsdp=4)
    tokens = np.arange(rows * 3, dtype=np.int32).reshape(rows, 3)
    shards = shard_batch({"tokens": tokens}, mesh)["tokens"].addressable_shards
    halves = [[shard for shard in shards if shard.device.id // 4 == process] for process in (0, 1)]
    if rows % 8:
        assert all(np.array_equal(shard.data, tokens) for half in halves for shard in half)
        return
    for process, half in enumerate(halves):
        part = np.concatenate([shard.data for shard in sorted(half, key=lambda shard: shard.index[0].start)])
        np.testing.assert_array_equal(part, tokens[process * rows // 2 : (process + 1) * rows // 2])


@pytest.mark.parametrize(
    ("rows", "accumulation", "wanted"), [(8, 1, 8), (3, 1, 8), (9, 1, 16), (6, 2, 16), (16, 2, 16)]
)
def test_a_batch_gets_as_many_empty_rows_as_let_the_mesh_split_every_microbatch(rows, accumulation, wanted):
    mesh = make_mesh(data=2, fsdp=4)
    assert splittable_rows(rows, mesh, accumulation) == wanted
    assert splittable_rows(rows, make_mesh(data=1, fsdp=1, tensor=8), accumulation) == rows
    batch = {"tokens": np.ones((rows, 2), np.int32), "segment_ids": np.ones((rows, 2), np.int32)}
    placed = shard_rows(batch, mesh, accumulation)
    for name in batch:
        assert not placed[name].sharding.is_fully_replicated
        np.testing.assert_array_equal(placed[name], np.repeat([[1, 1], [0, 0]], [rows, wanted - rows], axis=0))
