"""The stated memory and speed of accelerators, from which a run is estimated in advance."""

import dataclasses
import os
from collections.abc import Iterable, Mapping

import jax

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator, as JAX counts devices.

    Attributes:
      name: its product name.
      memory_bytes: what programs can use of its memory; on a TPU the compiler's limit, a little below the nominal size.
      peak_flops: dense bfloat16 operations a second; None if no maker states it (a CPU).
      memory_bandwidth: bytes a second.
      port_bandwidth: bytes a second, one way, of one port to a neighbour. A TPU has two ports along each axis of its
        torus; all of a GPU's NVLink counts as one port.
      network_bandwidth: bytes a second, one way, from one device to devices of other hosts over a separate network;
        None if the ports lead there too.
      source: where the figures come from.
      watts: the most power it draws, as its maker states it; None if none does (Google states none of a TPU).
    """

    name: str
    memory_bytes: int
    peak_flops: float | None = None
    memory_bandwidth: float | None = None
    port_bandwidth: float | None = None
    network_bandwidth: float | None = None
    source: str = ""
    watts: float | None = None


_CLOUD = "docs.cloud.google.com/tpu/docs/{}: peak compute, HBM bandwidth, interconnect bandwidth over its ports"
_NVIDIA = "NVIDIA's data sheet of the {}: bfloat16 without sparsity, memory bandwidth, half of NVLink's two-way figure"
_INFINIBAND = 50e9  # 400 Gbit/s a GPU, as in DGX H100 and its like

# By JAX's device_kind.
CHIPS: Mapping[str, Chip] = {
    "TPU v5 lite": Chip("TPU v5e", int(15.75 * GIB), 197e12, 819e9, 50e9, source=_CLOUD.format("v5e")),
    "TPU v5": Chip("TPU v5p", int(95.74 * GIB), 459e12, 2765e9, 100e9, source=_CLOUD.format("v5p")),
    "TPU v6 lite": Chip("TPU v6e", int(31.25 * GIB), 918e12, 1600e9, 100e9, source=_CLOUD.format("v6e")),
    "NVIDIA A100-SXM4-40GB": Chip(
        "A100 40GB", 40_000_000_000, 312e12, 1555e9, 300e9, 25e9, _NVIDIA.format("A100"), 400
    ),
    "NVIDIA A100-SXM4-80GB": Chip(
        "A100 80GB", 80_000_000_000, 312e12, 2039e9, 300e9, 25e9, _NVIDIA.format("A100"), 400
    ),
    "NVIDIA H100 80GB HBM3": Chip(
        "H100", 80_000_000_000, 989.4e12, 3350e9, 450e9, _INFINIBAND, _NVIDIA.format("H100 SXM"), 700
    ),
    "NVIDIA H200": Chip("H200", 141_000_000_000, 989.4e12, 4800e9, 450e9, _INFINIBAND, _NVIDIA.format("H200 SXM"), 700),
}


def chip_of(device: jax.Device) -> Chip:
    """Returns the figures of a device, or only its memory, as the device reports it, if it is not in the table.

    Raises:
      ValueError: if an accelerator is not in the table and does not report its memory.
    """
    if device.device_kind in CHIPS:
        return CHIPS[device.device_kind]
    if device.platform == "cpu":
        # All devices of a host, emulated ones too, share its memory.
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Chip("CPU", host // jax.local_device_count(), source="the host's memory, shared among its devices")
    statistics = device.memory_stats() or {}
    if "bytes_limit" not in statistics:
        raise ValueError(
            f"the memory of a {device.device_kind!r} is not known; known are {', '.join(sorted(CHIPS))}; "
            "add it to llama2_jax/sizing/chips.py"
        )
    return Chip(device.device_kind, statistics["bytes_limit"], source="memory_stats of the device")


def peak_flops(devices: Iterable[jax.Device]) -> float | None:
    """Returns the dense bfloat16 operations a second of all devices together; None if one's peak is not known."""
    chips = [CHIPS.get(device.device_kind) for device in devices]
    return None if None in chips else sum(chip.peak_flops for chip in chips)
