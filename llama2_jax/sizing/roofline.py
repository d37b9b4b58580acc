"""The roofline estimate: a lower bound on a program's time, from the stated speeds of a chip."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from llama2_jax.sizing.chips import Chip
from llama2_jax.sizing.program_costs import ProgramCosts


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one run of a program.

    Attributes:
      compute: for the matrix products only.
      memory: for reading and writing the main memory only.
      device: for all instructions in sequence, each bound by its arithmetic or its memory, whichever takes longer.
      collectives: for sending only.
    """

    compute: float
    memory: float
    device: float
    collectives: float

    @property
    def seconds(self) -> float:
        """The estimate with full overlap: the longer of the device's and the collectives' time."""
        return max(self.device, self.collectives)

    @property
    def seconds_without_overlap(self) -> float:
        """The estimate without overlap of computation and collectives."""
        return self.device + self.collectives

    @property
    def bound(self) -> str:
        """The slowest part: compute, memory or collectives."""
        times = {"compute": self.compute, "memory": self.memory, "collectives": self.collectives}
        return max(times, key=times.get)


def roofline(costs: ProgramCosts, chip: Chip, devices: Sequence[Any]) -> Roofline | None:
    """Returns the estimate for a program on a chip, or None if the chip's speed is not stated.

    Args:
      costs: of one run on one device.
      chip: the figures of each device.
      devices: the devices in the mesh's order, in which the groups of collectives index them.
    """
    if chip.peak_flops is None or chip.memory_bandwidth is None:
        return None
    compute = costs.flops / chip.peak_flops
    memory = costs.memory_bytes / chip.memory_bandwidth
    device = sum(
        operation.times * max(operation.flops / chip.peak_flops, operation.memory_bytes / chip.memory_bandwidth)
        for operation in costs.operations
    )
    groups = {collective.group for collective in costs.collectives}
    speeds = {group: bandwidth(chip, [devices[index] for index in group], devices) for group in groups}
    collectives = sum(
        collective.times * collective.bytes / speeds[collective.group] for collective in costs.collectives
    )
    return Roofline(compute, memory, device, collectives)


def bandwidth(chip: Chip, group: Sequence[Any], devices: Sequence[Any]) -> float:
    """Returns the bytes a second, one way, that each device of a group can send to the others.

    TPUs use both ports along every axis of the torus that the group spans completely, since it is a ring, and one port
    along every axis that it spans in part: the devices there form a line, whose ends have a single neighbour. GPUs use
    NVLink within a node and the network between nodes.

    Args:
      chip: the figures of each device.
      group: the devices that communicate.
      devices: all devices of the slice, which determine the lengths of its axes.

    Raises:
      ValueError: if the chip's interconnect is not stated.
    """
    if chip.port_bandwidth is None:
        raise ValueError(f"llama2_jax/sizing/chips.py states no bandwidth between devices for a {chip.name}: add it")
    if all(getattr(device, "coords", None) is not None for device in group):
        lengths = zip(_axis_lengths(group), _axis_lengths(devices), strict=True)
        ports = sum(2 if spanned == length > 2 else 1 for spanned, length in lengths if spanned > 1)
        return chip.port_bandwidth * max(1, ports)
    if chip.network_bandwidth and len({_node(device) for device in group}) > 1:
        return chip.network_bandwidth
    return chip.port_bandwidth


def _axis_lengths(devices: Sequence[Any]) -> list[int]:
    """Returns the number of different coordinates of the devices along each axis."""
    return [len(set(coordinates)) for coordinates in zip(*(device.coords for device in devices), strict=True)]


def _node(device: Any) -> int:
    index = getattr(device, "slice_index", None)
    return device.process_index if index is None else index
