"""The mesh of devices: data parallel, fully sharded data parallel and tensor parallel, in one shape."""

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

# The fields of a model that are split over an axis of the mesh, see axes.py.
SPLIT_FIELDS = {"dim": "fsdp", "heads": "tensor", "kv_heads": "tensor", "ffn_hidden": "tensor", "vocab_size": "tensor"}


def make_mesh(data: int = 1, fsdp: int = -1, tensor: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with axes data, fsdp and tensor over all devices, or the given ones; one size may be -1: the rest.

    The axes are Auto: the compiler propagates shardings from parameters, batch and the model's constraints.

    Raises:
      ValueError: where the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    asked = " x ".join(f"{name}={size}" for name, size in sizes.items())
    if any(size < 1 and size != -1 for size in sizes.values()):
        raise ValueError(f"mesh {asked}: each size must be at least 1, or -1 for the rest.")
    rest = [name for name, size in sizes.items() if size == -1]
    if len(rest) > 1:
        raise ValueError(f"mesh {asked}: only one size can be -1 (the rest).")
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(devices) % known or (not rest and known != len(devices)):
        raise ValueError(
            f"mesh {asked} does not fit {len(devices)} device(s): the sizes must multiply to the number of devices; "
            "set one of them to -1 to have it filled in."
        )
    for name in rest:
        sizes[name] = len(devices) // known
    grid = arrange_devices(tuple(sizes[name] for name in AXES), devices)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def arrange_devices(sizes: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices as an array of the mesh's shape, so that what is sent most goes over the shortest links.

    Devices that a fast network joins share a `slice_index`: the chips of a TPU slice, the GPUs of a node. Here the
    first axes of the mesh, which send least, go over the slow network between slices, as far as their sizes divide;
    the later ones only where there are more slices than that. (`jax.make_mesh` refuses devices of several slices.)

    Args:
      sizes: of each axis, that which sends least first; they multiply to the number of devices.
      devices: of any number of slices.

    Raises:
      ValueError: where the slices have different numbers of devices.
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
    between, left = [], len(slices)
    for size in sizes:
        between.append(math.gcd(size, left))
        left //= between[-1]
    within = [size // ways for size, ways in zip(sizes, between, strict=True)]
    grids = np.empty(len(slices), dtype=object)
    grids[:] = [_arrange_slice(within, slices[index]) for index in sorted(slices)]
    return np.block(grids.reshape(between).tolist())


def _arrange_slice(sizes: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    try:
        return mesh_utils.create_device_mesh(sizes, devices)
    except NotImplementedError:
        # An axis of the mesh ends within an axis of the slice: 64 of 4 x 4 x 8 chips. It gets no ring of its own there.
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)


def batch_sharding(mesh: Mesh, stacked: bool = False) -> NamedSharding:
    """The sharding of a batch: its rows split over data and fsdp, everything else whole.

    Args:
      mesh: the devices.
      stacked: arrays are [accumulation, rows, ...], and not [rows, ...].
    """
    return NamedSharding(mesh, partition_spec((None, "batch") if stacked else ("batch",)))


def data_parallel_size(mesh: Mesh | None) -> int:
    """Over how many groups of devices the rows of a batch are split; a batch's rows must be a multiple of it."""
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def row_multiple(mesh: Mesh, least: int = 8) -> int:
    """What the number of packed rows is rounded up to: rows that the mesh can split, and few shapes to compile.

    A multiple of `least`, whatever the mesh: the larger, the fewer shapes, and the more rows of padding.
    Rows that it can not split would lie whole on every device, and each would compute all of them.
    """
    return math.lcm(least, data_parallel_size(mesh))


def mesh_of(tree: Any) -> Mesh | None:
    """The mesh that a tree of arrays (a model's parameters) lives on; None where that is one device."""
    sharding = getattr(jax.tree.leaves(tree)[0], "sharding", None)
    return sharding.mesh if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1 else None


def check_divides(fields: Mapping[str, int], mesh: Mesh) -> None:
    """Checks that a model's sizes can be split over the mesh.

    Args:
      fields: the model's sizes by name (`dataclasses.asdict` of a model's config); others are not looked at.
      mesh: the devices.

    Raises:
      ValueError: naming each field that can not be split and over how many devices it would be.
    """
    wrong = [
        f"model.{name}={fields[name]} over mesh.{axis}={mesh.shape[axis]}"
        for name, axis in SPLIT_FIELDS.items()
        if fields[name] % mesh.shape[axis]
    ]
    if wrong:
        raise ValueError(f"can not be split evenly: {'; '.join(wrong)}. Choose a mesh whose sizes divide the model's.")
