"""What an experiment will need of each device, told before it is run: --dry_run.

Every stage's own programs are compiled for abstract arrays, on the devices here or for a TPU slice that is not here;
nothing is allocated, and nothing is read but the configuration.
"""

import dataclasses
import functools
import importlib
import importlib.metadata
import json
import os
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax import recipe
from llama2_jax.pipeline.device_programs import Program, ResidentModel
from llama2_jax.sizing.abstract import DoesNotFitError
from llama2_jax.sizing.chips import Chip, chip_of
from llama2_jax.sizing.program_costs import ProgramCosts, count_program
from llama2_jax.sizing.program_text import ProgramText, parse_program
from llama2_jax.sizing.roofline import roofline
from llama2_jax.sizing.table import table
from llama2_jax.sizing.topology import slice_devices

ASSUMPTIONS = (
    "times are a roofline: each instruction takes as long as its arithmetic at the chip's peak or its bytes at the "
    "memory's bandwidth, what is sent is sent meanwhile, and nothing else takes time; a real run is slower",
    "operations are those of matrix products and attention kernels, loops counted as often as they run",
    "MFU is by the operations that the model needs (models/flops.py), rows being full and each one sequence",
)


def run(
    config: ConfigDict, until: str = "", stages: Sequence[str] = (), topology: str = "", chip: Chip | None = None
) -> dict[str, Any]:
    """Sizes the stages of an experiment.

    Args:
      config: the experiment's.
      until: the last stage; empty for all.
      stages: only these; empty for all.
      topology: a TPU slice such as v5p:8x8x8; empty for the devices here.
      chip: what each device can do, where that is not to be looked up by its kind.

    Returns:
      What `--dry_run_json` writes: JSON without objects of other types; docs/scale.md says what each field is.

    Raises:
      ValueError: whatever a run would be refused for, an unknown stage, and a slice that can not be compiled for.
    """
    devices = slice_devices(topology) if topology else jax.devices()
    plan = recipe.plan(config, until, devices)
    unknown = [name for name in stages if name not in plan.stages]
    if unknown:
        raise ValueError(f"--stages={','.join(unknown)}: no such stage here; choose from {', '.join(plan.stages)}")
    chip = chip or chip_of(devices[0])
    sized = []
    for name in plan.stages:
        if not stages or name in stages:
            logging.info("dry run: %s", name)
            sized.append(_size_stage(name, plan, chip))
    peaks = [stage["peak_bytes"] for stage in sized if stage["programs"]]
    return {
        "experiment": config.experiment,
        "scale": config.scale,
        "topology": topology or None,
        "devices": len(devices),
        "mesh": dict(plan.mesh.shape),
        "chip": dataclasses.asdict(chip),
        "model": dataclasses.asdict(plan.model),
        "versions": _versions(bool(topology)),
        "assumptions": list(ASSUMPTIONS),
        "stages": sized,
        "peak_bytes": max(peaks, default=0),
        "fits": all(stage["fits"] for stage in sized),
    }


def main(config: ConfigDict, until: str, stages: Sequence[str], topology: str, json_path: str) -> int:
    """Sizes an experiment, prints the table, writes the JSON where a path is given; 0 if everything fits, else 1."""
    # A GPU's memory is left to those who run on it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    report = run(config, until, stages, topology)
    print(table(report), flush=True)
    if json_path:
        write_json(report, json_path)
    return 0 if report["fits"] else 1


def write_json(report: dict[str, Any], path: str) -> None:
    """Writes the report as JSON."""
    file = epath.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2) + "\n")


def _size_stage(name: str, plan: recipe.Plan, chip: Chip) -> dict[str, Any]:
    module = importlib.import_module(plan.config[name].run)
    if not hasattr(module, "device_work"):
        return {
            "stage": name, "run": module.__name__, "peak_bytes": 0, "fits": True, "programs": [], "unit": "",
            "assumptions": ["it tells of no work on devices"],
        }  # fmt: skip
    work = module.device_work(plan.config[name], plan.model, plan.mesh)
    programs = [_size_program(program, plan.mesh, chip) for program in work.programs]
    return {
        "stage": name,
        "run": module.__name__,
        "peak_bytes": max(program["peak_bytes"] for program in programs),
        "fits": all(program["fits"] for program in programs),
        "unit": work.unit,
        **_unit(programs, plan.mesh.size, chip),
        "assumptions": list(work.assumptions),
        "programs": programs,
    }


def _size_program(program: Program, mesh: Mesh, chip: Chip) -> dict[str, Any]:
    logging.info("  compiling %s", program.name)
    held = (*program.uses, *program.co_resident)
    parameters = sum(one.parameter_bytes for one in held)
    optimizer = sum(one.optimizer_bytes for one in held)
    row = {
        "program": program.name,
        "calls": program.calls,
        "held": _by_name(held),
        "parameter_bytes": parameters,
        "optimizer_bytes": optimizer,
        "model_flops": program.model_flops,
    }
    try:
        compiled = program.compile()
    except DoesNotFitError as error:
        # The compiler says of the program alone that it is too large.
        return row | {
            "activation_bytes": None, "peak_bytes": max(parameters + optimizer, chip.memory_bytes), "fits": False,
            "error": str(error),
        }  # fmt: skip
    memory = _memory(compiled)
    beside = sum(one.parameter_bytes + one.optimizer_bytes for one in program.co_resident)
    new = memory["results"] - memory["aliased"] + memory["temporaries"] + memory["code"]
    # A parameter that a program does not read is not among its arguments, and on the device all the same.
    peak = new + max(beside + memory["arguments"], parameters + optimizer)
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
        # Below 1 where operations are hidden from the count; its times are then too short.
        "counted_of_needed": costs.flops * mesh.size / program.model_flops if program.model_flops else None,
        **_times(program, costs, mesh, chip),
    }


def _memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes of each device as the compiler laid them out."""
    sizes = compiled.memory_analysis()
    return {
        "arguments": sizes.argument_size_in_bytes,
        "results": sizes.output_size_in_bytes,
        "aliased": sizes.alias_size_in_bytes,  # results that take the place of arguments
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
            "the compiled program can not be read: the libtpu installed is not the one that belongs to this jax "
            f'({jax.__version__}). Mend it by: pip install "jax[tpu]=={jax.__version__}"'
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


def _by_name(held: Sequence[ResidentModel]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for one in held:
        sizes[one.name] = sizes.get(one.name, 0) + one.parameter_bytes + one.optimizer_bytes
    return sizes


def _versions(with_libtpu: bool) -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", *(["libtpu"] if with_libtpu else []))
    return {name: importlib.metadata.version(name) for name in packages}
