"""How long a program would take on a chip that does everything as fast as its maker states: a bound from below."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from llama2_jax.sizing.chips import Chip
from llama2_jax.sizing.program_costs import ProgramCosts


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one run of a program.

    Attributes:
      compute: of the matrix products alone.
      memory: of reading and writing the main memory alone.
      device: of all instructions one after the other, each as long as its arithmetic or its memory takes, whichever
        is longer.
      collectives: of sending alone.
    """

    compute: float
    memory: float
    device: float
    collectives: float

    @property
    def seconds(self) -> float:
        """The estimate: what is sent is sent while the device computes, and the longer of the two counts."""
        return max(self.device, self.collectives)

    @property
    def seconds_without_overlap(self) -> float:
        """The same with nothing sent while the device computes."""
        return self.device + self.collectives

    @property
    def bound(self) -> str:
        """What takes longest: compute, memory or collectives."""
        times = {"compute": self.compute, "memory": self.memory, "collectives": self.collectives}
        return max(times, key=times.get)


def roofline(costs: ProgramCosts, chip: Chip, devices: Sequence[Any]) -> Roofline | None:
    """The bound for a program on a chip; None where the chip's speed is not stated.

    Args:
      costs: of one run on one device.
      chip: what each device can do.
      devices: the devices in the mesh's order, which the groups of collectives count in.
    """
    if chip.peak_flops is None or chip.memory_bandwidth is None:
        return None
    compute = costs.flops / chip.peak_flops
    memory = costs.memory_bytes / chip.memory_bandwidth
    device = sum(
        one.times * max(one.flops / chip.peak_flops, one.memory_bytes / chip.memory_bandwidth)
        for one in costs.operations
    )
    groups = {one.group for one in costs.collectives}
    speeds = {group: bandwidth(chip, [devices[n] for n in group], devices) for group in groups}
    collectives = sum(one.times * one.bytes / speeds[one.group] for one in costs.collectives)
    return Roofline(compute, memory, device, collectives)


def bandwidth(chip: Chip, group: Sequence[Any], devices: Sequence[Any]) -> float:
    """Bytes a second, one way, that each device of a group can send to the others.

    Of TPUs it is both ports along every axis of the torus that the group spans from end to end, which there is a ring,
    and one port along every axis of which it has a part, whose devices stand in a row: those at its ends have one
    neighbour. Of GPUs it is NVLink within a node and the network beyond it.

    Args:
      chip: what each device can do.
      group: the devices that exchange something.
      devices: all devices of the slice, which tell how long its axes are.

    Raises:
      ValueError: where the chip's interconnect is not stated.
    """
    if chip.port_bandwidth is None:
        raise ValueError(f"how fast a {chip.name} sends to others is not stated in llama2_jax/sharding/chips.py")
    if all(getattr(device, "coords", None) is not None for device in group):
        spans = [_lengths(members) for members in (group, devices)]
        ports = sum(2 if part == whole > 2 else 1 for part, whole in zip(*spans, strict=True) if part > 1)
        return chip.port_bandwidth * max(1, ports)
    if chip.network_bandwidth and len({_node(device) for device in group}) > 1:
        return chip.network_bandwidth
    return chip.port_bandwidth


def _lengths(devices: Sequence[Any]) -> list[int]:
    """In how many places along each axis the devices stand."""
    return [len(set(along)) for along in zip(*(device.coords for device in devices), strict=True)]


def _node(device: Any) -> int:
    index = getattr(device, "slice_index", None)
    return device.process_index if index is None else index
