"""The mesh of devices, with axes for data, fully sharded data and tensor parallelism."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding

from llama2_jax.sharding.axes import partition_spec

AXES = ("data", "fsdp", "tensor")

# The sizes of a model that are split over an axis of the mesh, see axes.py.
SPLIT_FIELDS = {"dim": "fsdp", "heads": "tensor", "kv_heads": "tensor", "ffn_hidden": "tensor", "vocab_size": "tensor"}

# Packed rows are rounded up to a multiple of it on a single device: larger multiples have fewer shapes to compile, but
# short answers fill few rows, and of a multiple of eight most could be padding.
LEAST_ROWS = 2


def make_mesh(data: int = 1, fsdp: int = -1, tensor: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with axes data, fsdp and tensor over all devices, or the given ones; one size may be -1: the rest.

    The axes are Auto: the compiler propagates shardings from parameters, batch and the model's constraints.

    Raises:
      ValueError: if the product of the sizes is not the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    requested = " x ".join(f"{name}={size}" for name, size in sizes.items())
    if any(size < 1 and size != -1 for size in sizes.values()):
        raise ValueError(f"mesh {requested}: each size must be at least 1, or -1 for the rest.")
    rest = [name for name, size in sizes.items() if size == -1]
    if len(rest) > 1:
        raise ValueError(f"mesh {requested}: only one size can be -1 (the rest).")
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(devices) % known or (not rest and known != len(devices)):
        raise ValueError(
            f"mesh {requested} does not fit {len(devices)} device(s): the product of the sizes must be the number of "
            "devices; set one of them to -1 to have it filled in."
        )
    for name in rest:
        sizes[name] = len(devices) // known
    grid = arrange_devices(tuple(sizes[name] for name in AXES), devices)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def arrange_devices(sizes: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    """Returns the devices as an array of the mesh's shape, with the axes that communicate most on the shortest links.

    Devices on one fast network share a `slice_index`: the chips of a TPU slice, the GPUs of a node. The first axes of
    the mesh, which communicate least, go over the slow network between slices, as far as their sizes divide; the later
    ones only if there are more slices than that. (`jax.make_mesh` refuses devices of several slices.)

    Args:
      sizes: of each axis, the one that communicates least first; their product is the number of devices.
      devices: of any number of slices.

    Raises:
      ValueError: if the slices have different numbers of devices.
    """
    slices: dict[int, list[jax.Device]] = collections.defaultdict(list)
    for device in devices:
        slices[getattr(device, "slice_index", None) or 0].append(device)
    counts = {len(members) for members in slices.values()}
    if len(counts) > 1:
        raise ValueError(
            f"the devices are in {len(slices)} slices or nodes of different sizes "
            f"({', '.join(f'{index}: {len(members)}' for index, members in sorted(slices.items()))} devices): "
            "a mesh needs the same number in each."
        )
    between, remaining = [], len(slices)
    for size in sizes:
        between.append(math.gcd(size, remaining))
        remaining //= between[-1]
    within = [size // count for size, count in zip(sizes, between, strict=True)]
    grids = np.empty(len(slices), dtype=object)
    grids[:] = [_arrange_slice(within, slices[index]) for index in sorted(slices)]
    return np.block(grids.reshape(between).tolist())


def _arrange_slice(sizes: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    try:
        return mesh_utils.create_device_mesh(sizes, devices)
    except NotImplementedError:
        # An axis of the mesh ends within an axis of the slice, such as 64 of 4 x 4 x 8 chips, and has no ring there.
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)


def batch_sharding(mesh: Mesh, stacked: bool = False) -> NamedSharding:
    """Returns the sharding of a batch: its rows are split over data and fsdp, other dimensions are not.

    Args:
      mesh: the devices.
      stacked: arrays are [accumulation, rows, ...], and not [rows, ...].
    """
    return NamedSharding(mesh, partition_spec((None, "batch") if stacked else ("batch",)))


def data_parallel_size(mesh: Mesh | None) -> int:
    """Returns over how many groups of devices a batch is split; its number of rows must be a multiple of it."""
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def row_multiple(mesh: Mesh, accumulation: int = 1) -> int:
    """Returns the multiple to which a number of packed rows is rounded up, so that the mesh can split them.

    Rows that the mesh cannot split would be replicated, and each device would compute all of them. With `accumulation`
    each of so many microbatches can be split, if the rows are distributed to them.
    """
    return math.lcm(LEAST_ROWS, data_parallel_size(mesh) * accumulation)


def mesh_of(tree: Any) -> Mesh | None:
    """Returns the mesh of a tree of arrays (a model's parameters), or None if they are on one device."""
    sharding = getattr(jax.tree.leaves(tree)[0], "sharding", None)
    return sharding.mesh if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1 else None


def check_divides(fields: Mapping[str, int], mesh: Mesh) -> None:
    """Checks that a model's sizes can be split over the mesh.

    Args:
      fields: the model's sizes by name (`dataclasses.asdict` of a model's config); other fields are ignored.
      mesh: the devices.

    Raises:
      ValueError: if a field cannot be split; with all such fields and the axes of the mesh.
    """
    wrong = [
        f"model.{name}={fields[name]} over mesh.{axis}={mesh.shape[axis]}"
        for name, axis in SPLIT_FIELDS.items()
        if fields[name] % mesh.shape[axis]
    ]
    if wrong:
        raise ValueError(f"cannot be split evenly: {'; '.join(wrong)}. Choose a mesh whose sizes divide the model's.")
