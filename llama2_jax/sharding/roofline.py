"""How long a program would take on a chip that does everything as fast as its maker states: a bound from below."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from llama2_jax.sharding.chips import Chip
from llama2_jax.sharding.program_costs import ProgramCosts


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
    speeds = {group: bandwidth(chip, [devices[n] for n in group]) for group in {one.group for one in costs.collectives}}
    collectives = sum(one.times * one.bytes / speeds[one.group] for one in costs.collectives)
    return Roofline(compute, memory, device, collectives)


def bandwidth(chip: Chip, group: Sequence[Any]) -> float:
    """Bytes a second, one way, that each device of a group can send to the others.

    Of TPUs it is the two ports along every axis of the torus in which the group's places differ; of GPUs NVLink within
    a host and the network beyond it.

    Raises:
      ValueError: where the chip's interconnect is not stated.
    """
    if chip.port_bandwidth is None:
        raise ValueError(f"how fast a {chip.name} sends to others is not stated in llama2_jax/sharding/chips.py")
    places = [getattr(device, "coords", None) for device in group]
    if all(place is not None for place in places):
        axes = sum(len(set(along)) > 1 for along in zip(*places, strict=True))
        return 2 * chip.port_bandwidth * max(1, axes)
    if chip.network_bandwidth and len({device.process_index for device in group}) > 1:
        return chip.network_bandwidth
    return chip.port_bandwidth
