import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from llama2_jax.models.config import PRESETS
from llama2_jax.sharding.mesh import (
    arrange_devices,
    batch_sharding,
    check_divides,
    data_parallel_size,
    make_mesh,
    mesh_of,
)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((1, -1, 1), (1, 8, 1)), ((2, -1, 2), (2, 2, 2)), ((-1, 1, 4), (2, 1, 4)), ((2, 4, 1), (2, 4, 1))],
)
def test_minus_one_is_the_rest(sizes, shape):
    mesh = make_mesh(*sizes)
    assert tuple(mesh.shape.values()) == shape
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_all_devices_are_fully_sharded_by_default():
    assert make_mesh().shape["fsdp"] == len(jax.devices())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, -1, 1), "data=3 x fsdp=-1 x tensor=1 does not fit 8"),
        ((1, 1, 1), "does not fit 8"),
        ((16, -1, 1), "does not fit 8"),
        ((-1, -1, 1), "only one size"),
        ((0, -1, 1), "at least 1"),
    ],
)
def test_sizes_that_do_not_fit_the_devices_are_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(*sizes)


def test_a_mesh_of_given_devices():
    assert make_mesh(1, 1, 1, devices=jax.devices()[:1]).size == 1


@dataclasses.dataclass(frozen=True)
class Node:
    """A GPU of a cluster, with the fields that a mesh needs."""

    id: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100"


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip of a TPU slice, with the fields that a mesh needs."""

    id: int
    coords: tuple[int, int, int]
    slice_index: int = 0
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5"


def chips(shape: tuple[int, int, int], slices: int = 1) -> list[Chip]:
    places = [(index, coords[::-1]) for index in range(slices) for coords in np.ndindex(*shape[::-1])]
    return [Chip(number, coords, index) for number, (index, coords) in enumerate(places)]


@pytest.mark.parametrize(
    ("sizes", "crossing"),
    [
        ((4, 8, 1), [4, 1, 1]),  # only the gradients' sum goes between nodes
        ((1, 32, 1), [1, 4, 1]),  # the default mesh
        ((2, 4, 4), [2, 2, 1]),
        ((1, 2, 16), [1, 2, 2]),
    ],
)
def test_the_axes_that_communicate_least_go_between_nodes(sizes, crossing):
    nodes = [Node(number, number // 8) for number in range(32)]
    grid = arrange_devices(sizes, nodes)
    assert grid.shape == sizes and set(grid.flat) == set(nodes)
    index = np.vectorize(lambda node: node.slice_index)(grid)
    for axis, count in enumerate(crossing):
        for line in np.moveaxis(index, axis, -1).reshape(-1, sizes[axis]):
            assert len(set(line)) == count and np.all(np.diff(line) >= 0), "each node's devices are contiguous"


def test_nodes_of_different_sizes_are_named():
    with pytest.raises(ValueError, match="0: 8, 1: 4 devices"):
        arrange_devices((1, 12, 1), [Node(number, number // 8) for number in range(12)])


@pytest.mark.parametrize(("shape", "sizes"), [((4, 4, 8), (1, 64, 2)), ((8, 8, 8), (1, 64, 8)), ((4, 4, 4), (4, 4, 4))])
def test_neighbours_in_a_mesh_are_neighbours_in_the_tpu_slice(shape, sizes):
    grid = arrange_devices(sizes, chips(shape))
    assert grid.shape == sizes and len(set(grid.flat)) == math.prod(shape)
    for chip, next_chip in zip(grid[..., :-1].flat, grid[..., 1:].flat, strict=True):
        distances = [abs(a - b) for a, b in zip(chip.coords, next_chip.coords, strict=True)]
        assert sum(min(distance, length - distance) for distance, length in zip(distances, shape, strict=True)) == 1


def test_slices_of_a_tpu_are_joined_over_the_axis_data():
    grid = arrange_devices((2, 64, 1), chips((4, 4, 4), slices=2))
    assert [{chip.slice_index for chip in half.flat} for half in grid] == [{0}, {1}]


def test_rows_are_split_over_data_and_fsdp():
    mesh = make_mesh(2, 2, 2)
    assert batch_sharding(mesh).spec == PartitionSpec(("data", "fsdp"))
    assert data_parallel_size(mesh) == 4
    assert data_parallel_size(None) == 1
    rows = jax.device_put(jnp.zeros((8, 3)), batch_sharding(mesh))
    assert {shard.data.shape for shard in rows.addressable_shards} == {(2, 3)}


def test_the_mesh_of_parameters_is_found():
    mesh = make_mesh(1, 8, 1)
    assert mesh_of({"a": jax.device_put(jnp.zeros(8), batch_sharding(mesh))}) == mesh
    assert mesh_of({"a": jnp.zeros(8)}) is None
    assert mesh_of({"a": jax.device_put(jnp.zeros(8), batch_sharding(make_mesh(devices=jax.devices()[:1])))}) is None


def test_a_model_that_cannot_be_split_is_refused_by_field():
    fields = dataclasses.asdict(PRESETS["tiny"])
    check_divides(fields, make_mesh(1, 4, 2))
    with pytest.raises(ValueError, match=r"model\.kv_heads=2 over mesh\.tensor=8"):
        check_divides(fields, make_mesh(1, 1, 8))
