"""Reports what an experiment will need of each device, before it runs: --dry_run.

Every stage's own programs are compiled for abstract arrays, for the local devices or for a TPU slice that need not
exist; nothing is allocated, and only the configuration is read.
"""

import dataclasses
import importlib
import importlib.metadata
import json
import os
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from llama2_jax import recipe
from llama2_jax.paths import expand_home
from llama2_jax.sizing.chips import Chip, chip_of
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.sizing.stage_size import size_work
from llama2_jax.sizing.table import table
from llama2_jax.sizing.topology import slice_devices

ASSUMPTIONS = (
    "times are a roofline: each instruction takes as long as its arithmetic at the chip's peak or its bytes at the "
    "memory's bandwidth, communication overlaps with it, and nothing else takes time; a real run is slower",
    "operations are those of matrix products and attention kernels, loops counted as often as they run",
    "MFU is by the operations that the model needs (models/flops.py), with full rows of one sequence each",
)


def run(
    config: ConfigDict, until: str = "", stages: Sequence[str] = (), topology: str = "", chip: Chip | None = None
) -> dict[str, Any]:
    """Sizes the stages of an experiment.

    Args:
      config: the experiment's.
      until: the last stage; empty for all.
      stages: only these; empty for all.
      topology: a TPU slice such as v5p:8x8x8; empty for the local devices.
      chip: the devices' speeds and memory; by default looked up by their kind.

    Returns:
      The content of `--dry_run_json`: only JSON types; docs/scale.md describes the fields.

    Raises:
      ValueError: if a run would be refused, a stage is unknown, or the slice cannot be compiled for.
    """
    devices = slice_devices(topology) if topology else jax.devices()
    plan = recipe.plan(config, until, devices)
    unknown = [name for name in stages if name not in plan.stages]
    if unknown:
        raise ValueError(f"--stages={','.join(unknown)}: no such stage; choose from {', '.join(plan.stages)}")
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
    """Sizes an experiment, prints the table, writes the JSON (if `json_path`); returns 0 if everything fits, else 1."""
    # Leaves a GPU's memory to other processes.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    report = run(config, until, stages, topology)
    print(table(report), flush=True)
    if json_path:
        write_json(report, json_path)
    return 0 if report["fits"] else 1


def write_json(report: dict[str, Any], path: str) -> None:
    """Writes the report as JSON."""
    file = epath.Path(expand_home(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2) + "\n")


def _size_stage(name: str, plan: recipe.Plan, chip: Chip) -> dict[str, Any]:
    module = importlib.import_module(plan.config[name].run)
    if not hasattr(module, "device_work"):
        work = DeviceWork((), assumptions=("the stage does not describe its work on devices",))
    else:
        work = module.device_work(plan.config[name], plan.model, plan.mesh)
    return {"stage": name, "run": module.__name__, **size_work(work, plan.mesh, chip)}


def _versions(with_libtpu: bool) -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", *(["libtpu"] if with_libtpu else []))
    return {name: importlib.metadata.version(name) for name in packages}
