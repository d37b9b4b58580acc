"""Times from work and a chip's figures, against counts by hand."""

import itertools
import types

import jax
import pytest

from llama2_jax.sizing.chips import CHIPS, Chip, chip_of
from llama2_jax.sizing.program_costs import Collective, Operation, ProgramCosts
from llama2_jax.sizing.roofline import bandwidth, roofline

# 100 operations and 10 bytes of memory a second, 4 bytes a second through each port.
SLOW = Chip("slow", 1000, peak_flops=100.0, memory_bandwidth=10.0, port_bandwidth=4.0)


def tpus(*coords):
    return [types.SimpleNamespace(coords=coordinates, process_index=0) for coordinates in coords]


def gpus(*hosts):
    return [types.SimpleNamespace(process_index=host) for host in hosts]


def test_each_instruction_is_bound_by_its_arithmetic_or_its_memory():
    costs = ProgramCosts((Operation(200.0, 1.0, 3), Operation(0.0, 30.0, 2)), (), 0, {})
    times = roofline(costs, SLOW, [])
    assert (times.compute, times.memory, times.device) == (6.0, 6.3, 3 * 2.0 + 2 * 3.0)
    assert times.seconds == times.seconds_without_overlap == 12.0 and times.bound == "memory"


def test_collectives_overlap_with_the_computation():
    devices = tpus(*itertools.product(range(4), range(4), range(1)))
    for size, seconds, bound in ((8.0, 5.0, "compute"), (160.0, 10.0, "collectives")):
        sent = Collective("all-gather", size, tuple(range(16)), 1)
        times = roofline(ProgramCosts((Operation(500.0, 0.0, 1),), (sent,), 0, {}), SLOW, devices)
        assert times.collectives == size / 16 and times.seconds == seconds and times.bound == bound
        assert times.seconds_without_overlap == 5.0 + size / 16


def test_a_group_uses_the_ports_of_all_axes_that_it_spans():
    slice_of_4_4_8 = tpus(*itertools.product(range(4), range(4), range(8)))
    for group, ports in (
        ([(0, 0, z) for z in range(8)], 2),  # a ring
        ([(x, y, 0) for x in range(4) for y in range(4)], 4),
        (list(itertools.product(range(4), range(4), range(8))), 6),
        ([(0, 0, z) for z in range(4)], 1),  # half a ring: a line
        ([(0, 0, z) for z in range(2)], 1),
        (list(itertools.product(range(4), range(4), range(0, 8, 2))), 5),
    ):
        assert bandwidth(SLOW, tpus(*group), slice_of_4_4_8) == ports * 4
    pair = tpus((0, 0, 0), (1, 0, 0))
    assert bandwidth(SLOW, pair, pair) == 4, "two chips are joined by one link"


def test_gpus_of_several_hosts_send_over_the_network():
    chip = CHIPS["NVIDIA H200"]
    one_host, two_hosts = gpus(0, 0, 0), gpus(0, 1)
    assert bandwidth(chip, one_host, one_host) == chip.port_bandwidth > bandwidth(chip, two_hosts, two_hosts) == 50e9
    for device in two_hosts:
        device.slice_index = 3  # a process for each GPU of one node
    assert bandwidth(chip, two_hosts, two_hosts) == chip.port_bandwidth


def test_a_chip_of_unknown_speed_has_no_times():
    cpu = chip_of(jax.devices()[0])
    assert roofline(ProgramCosts((Operation(1.0, 1.0, 1),), (), 0, {}), cpu, []) is None
    assert 0 < cpu.memory_bytes * jax.local_device_count() < 2**50


def test_an_accelerator_that_is_not_in_the_table_reports_its_memory():
    device = types.SimpleNamespace(device_kind="New", platform="gpu", memory_stats=lambda: {"bytes_limit": 7})
    assert chip_of(device).memory_bytes == 7
    device.memory_stats = lambda: None
    with pytest.raises(ValueError, match=r"memory of a 'New' is not known; known are .*TPU v5.*sizing/chips\.py"):
        chip_of(device)
