"""What a stage's programs need of each device: compiled, counted and held against what the chip can do."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh

from llama2_jax.sizing.abstract import DoesNotFitError
from llama2_jax.sizing.chips import Chip
from llama2_jax.sizing.program_costs import ProgramCosts, count_program
from llama2_jax.sizing.program_text import ProgramText, parse_program
from llama2_jax.sizing.programs import DeviceWork, Program, ResidentModel
from llama2_jax.sizing.roofline import roofline


def size_work(work: DeviceWork, mesh: Mesh, chip: Chip) -> dict[str, Any]:
    """Compiles a stage's programs and returns what they need: memory, operations, traffic and time of one device.

    Args:
      work: the stage's.
      mesh: the devices that the programs are compiled for.
      chip: what each of them can do.

    Returns:
      JSON without objects of other types; docs/scale.md says what each field is.
    """
    programs = [_size_program(program, mesh, chip) for program in work.programs]
    unit = _unit(programs, mesh.size, chip) if programs else {}
    return {
        "peak_bytes": max((program["peak_bytes"] for program in programs), default=0),
        "fits": all(program["fits"] for program in programs),
        "unit": work.unit,
        **unit,
        "assumptions": list(work.assumptions),
        "programs": programs,
    }


def _size_program(program: Program, mesh: Mesh, chip: Chip) -> dict[str, Any]:
    logging.info("  compiling %s", program.name)
    resident = (*program.uses, *program.co_resident)
    parameters = sum(one.parameter_bytes for one in resident)
    optimizer = sum(one.optimizer_bytes for one in resident)
    row = {
        "program": program.name,
        "calls": program.calls,
        "held": _by_name(resident),
        "parameter_bytes": parameters,
        "optimizer_bytes": optimizer,
        "model_flops": program.model_flops,
    }
    try:
        compiled = program.compile()
    except DoesNotFitError as error:
        # The compiler reports only that the program is too large, not by how much.
        return row | {
            "activation_bytes": None, "peak_bytes": max(parameters + optimizer, chip.memory_bytes), "fits": False,
            "error": str(error),
        }  # fmt: skip
    memory = _memory(compiled)
    co_resident = sum(one.parameter_bytes + one.optimizer_bytes for one in program.co_resident)
    new = memory["results"] - memory["aliased"] + memory["temporaries"] + memory["code"]
    # A parameter that a program does not read is not among its arguments, but is on the device.
    peak = new + max(co_resident + memory["arguments"], parameters + optimizer)
    costs = _costs(compiled, program.loop_trips)
    return row | {
        "activation_bytes": peak - parameters - optimizer,
        "peak_bytes": peak,
        "fits": peak <= chip.memory_bytes,
        "memory": memory,
        "flops": costs.flops,
        "memory_traffic_bytes": costs.memory_bytes,
        "collective_bytes": costs.collective_bytes,
        "guessed_loops": costs.guessed_loops,
        "loop_trips": program.loop_trips,
        "uncounted": costs.uncounted,
        # Below 1 if operations are hidden from the count; its times are then too short.
        "counted_of_needed": costs.flops * mesh.size / program.model_flops if program.model_flops else None,
        **_times(program, costs, mesh, chip),
    }


def _memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes of each device as the compiler laid them out."""
    sizes = compiled.memory_analysis()
    return {
        "arguments": sizes.argument_size_in_bytes,
        "results": sizes.output_size_in_bytes,
        "aliased": sizes.alias_size_in_bytes,  # results that reuse the memory of arguments
        "temporaries": sizes.temp_size_in_bytes,
        "code": sizes.generated_code_size_in_bytes,
    }


def _costs(compiled: jax.stages.Compiled, loop_trips: int) -> ProgramCosts:
    return count_program(_text(compiled), loop_trips)


@functools.lru_cache(maxsize=4)
def _text(compiled: jax.stages.Compiled) -> ProgramText:
    try:
        return parse_program(compiled.as_text())
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(
            "the compiled program cannot be read: the installed libtpu does not belong to this jax "
            f'({jax.__version__}). Fix it with: pip install "jax[tpu]=={jax.__version__}"'
        ) from error


def _times(program: Program, costs: ProgramCosts, mesh: Mesh, chip: Chip) -> dict[str, Any]:
    times = roofline(costs, chip, list(mesh.devices.flat))
    if times is None:
        return {"seconds": None, "seconds_without_overlap": None, "bound": None, "mfu": None}
    return {
        "seconds": times.seconds,
        "seconds_without_overlap": times.seconds_without_overlap,
        "compute_seconds": times.compute,
        "memory_seconds": times.memory,
        "collective_seconds": times.collectives,
        "bound": times.bound,
        "mfu": program.model_flops / (times.seconds * chip.peak_flops * mesh.size),
    }


def _unit(programs: list[dict[str, Any]], devices: int, chip: Chip) -> dict[str, Any]:
    """The stage's unit of work: every program as often as it runs in it."""
    repeated = [program for program in programs if program["calls"]]
    if not repeated or not all(program.get("seconds") for program in repeated):
        return {"unit_seconds": None, "unit_mfu": None}
    seconds = sum(program["calls"] * program["seconds"] for program in repeated)
    needed = sum(program["calls"] * program["model_flops"] for program in repeated)
    return {"unit_seconds": seconds, "unit_mfu": needed / (seconds * chip.peak_flops * devices)}


def _by_name(resident: Sequence[ResidentModel]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for one in resident:
        sizes[one.name] = sizes.get(one.name, 0) + one.parameter_bytes + one.optimizer_bytes
    return sizes
