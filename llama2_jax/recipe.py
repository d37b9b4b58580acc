"""Run the stages of an experiment in order: skip what is done, resume what is not, refuse what has changed."""

import dataclasses
import functools
import hashlib
import importlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.models.config import EXECUTION_FIELDS, ModelConfig
from llama2_jax.pipeline.resumable import remove_shards
from llama2_jax.pipeline.runtime import Runtime, stage_key, stage_seed, versions
from llama2_jax.pipeline.stage_files import write_json
from llama2_jax.sharding.mesh import check_divides, make_mesh
from llama2_jax.sharding.processes import from_first
from llama2_jax.training.interruption import Interruption

# Parts of the configuration that every stage depends on, besides its own.
SHARED_PARTS = ("seed", "model", "data")


class RecipeError(ValueError):
    """The experiment can not be run as configured; the message says what is wrong and what to do."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a stage was run with: its configuration and the fingerprints of its inputs."""

    config: dict
    inputs: dict[str, str]

    @property
    def identity_config(self) -> dict:
        """What its result depends on: not how the model is computed, which a run may change to fit other devices."""
        model = {field: value for field, value in self.config["model"].items() if field not in EXECUTION_FIELDS}
        return {"config": {**self.config, "model": model}, "inputs": self.inputs}

    @property
    def fingerprint(self) -> str:
        """The hash of what the result depends on, through the inputs also of everything upstream."""
        return hashlib.sha256(json.dumps(self.identity_config, sort_keys=True).encode()).hexdigest()


def run(
    config: ConfigDict,
    workdir: str,
    until: str = "",
    redo: str = "",
    interruption: Interruption | None = None,
    step_timeout: float = 0.0,
) -> dict[str, dict]:
    """Runs the experiment's stages and returns each one's record (the content of its stage.json).

    Args:
      config: an experiment's configuration: `stages` names the stages in order, `config[name]` is each one's part, and
        `given` may name for a stage a folder that is taken in its place (stages/imported.py).
      workdir: a folder, local or gs://; every stage writes `<workdir>/<stage>/`.
      until: the last stage to run; empty runs all.
      redo: a stage to run again although its config or inputs have changed; what depends on it runs again too.
      interruption: where trainings look whether the run is to stop (training/interruption.py).
      step_timeout: the seconds that a training step, or a portion of answers, may take before the process ends with a
        message; 0: any.

    Raises:
      RecipeError: for an unknown stage, an input that no earlier stage provides, or a stage whose configuration
        or inputs differ from those of the run found in the workdir.
    """
    config, names, model, mesh = plan(config, until)
    redone = _with_dependents(config, redo)
    records: dict[str, dict] = {}
    for name in names:
        folder = epath.Path(workdir) / name
        identity = _identity(config, name, records)
        records[name] = from_first(functools.partial(_done, folder, identity, name, name in redone)) or _run_stage(
            config, name, folder, identity, Runtime(
                stage=name,
                folder=folder,
                data_root=config.data.root,
                seed=stage_seed(config.seed, name),
                experiment_seed=config.seed,
                key=stage_key(config.seed, name),
                mesh=mesh,
                model=model,
                interruption=interruption or Interruption(),
                step_timeout=step_timeout,
            )
        )  # fmt: skip
    return records


class Plan(NamedTuple):
    """An experiment that can be run: its configuration, its stages in order, its model and the devices."""

    config: ConfigDict
    stages: Sequence[str]
    model: ModelConfig
    mesh: Mesh


def plan(config: ConfigDict, until: str = "", devices: Sequence[jax.Device] | None = None) -> Plan:
    """Checks an experiment and lays out its mesh, before anything is run.

    Args:
      config: see `run`.
      until: see `run`.
      devices: what it is to run on; by default all there are.

    Raises:
      RecipeError: as `run`, and for a model or mesh that do not fit each other or the devices.
    """
    config = _with_given(config)
    validate(config)
    names = _stages_until(config, until)
    try:
        model = ModelConfig(**config.model)
        mesh = make_mesh(**config.mesh, devices=devices)
        check_divides(dict(config.model), mesh)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    return Plan(config, names, model, mesh)


def validate(config: ConfigDict) -> None:
    """Raises RecipeError where the list of stages and their inputs do not fit together."""
    earlier: list[str] = []
    for name in config.stages:
        if name not in config:
            raise RecipeError(f"config.stages names {name!r}, but the experiment has no part config.{name}")
        if "run" not in config[name]:
            raise RecipeError(f"config.{name}.run is missing: the dotted path of the stage's module")
        for role, sources in config[name].get("inputs", {}).items():
            for source in _as_tuple(sources):
                if source not in earlier:
                    raise RecipeError(
                        f"config.{name}.inputs.{role} names {source!r}, which is not a stage before {name!r}; "
                        f"the stages before it are: {', '.join(earlier) or 'none'}"
                    )
        earlier.append(name)


def _with_given(config: ConfigDict) -> ConfigDict:
    """The experiment with a stage that takes a folder over, in place of each stage for which one is given."""
    config = config.copy_and_resolve_references()
    for name, folder in config.get("given", {}).items():
        if not folder:
            continue
        if name not in config.stages:
            raise RecipeError(f"config.given.{name}: {name!r} is not a stage; the stages: {', '.join(config.stages)}")
        folder = folder if "://" in folder else os.path.abspath(os.path.expanduser(folder))
        role = config[name].get("role", "imported")
        config[name] = ConfigDict({"run": "llama2_jax.stages.imported", "role": role, "folder": folder})
    return config


def _stages_until(config: ConfigDict, until: str) -> Sequence[str]:
    if until and until not in config.stages:
        raise RecipeError(f"--until={until} is not a stage of this experiment; its stages: {', '.join(config.stages)}")
    return config.stages[: config.stages.index(until) + 1] if until else config.stages


def _with_dependents(config: ConfigDict, redo: str) -> set[str]:
    if not redo:
        return set()
    if redo not in config.stages:
        raise RecipeError(f"--redo={redo} is not a stage of this experiment; its stages: {', '.join(config.stages)}")
    redone = {redo}
    for name in config.stages:
        sources = {source for value in config[name].get("inputs", {}).values() for source in _as_tuple(value)}
        if sources & redone:
            redone.add(name)
    return redone


def _as_tuple(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _identity(config: ConfigDict, name: str, records: Mapping[str, dict]) -> Identity:
    plain = json.loads(config.to_json_best_effort())
    own = {part: plain[part] for part in (*SHARED_PARTS, name)}
    inputs = {
        f"{role}/{source}": records[source]["fingerprint"]
        for role, sources in config[name].get("inputs", {}).items()
        for source in _as_tuple(sources)
    }
    return Identity(own, inputs)


def _done(folder: epath.Path, identity: Identity, name: str, redo: bool) -> dict | None:
    """The record of a finished stage; None where there is work to do; RecipeError where the run there is another."""
    if redo and folder.exists():
        folder.rmtree()
    for file in ("stage.json", "started.json"):
        if (folder / file).exists():
            record, before = _read_record(folder / file, name)
            if before != identity.identity_config:
                raise RecipeError(_what_changed(before, identity.identity_config, name, folder))
            return record if file == "stage.json" else None
    held = [part for part in ("checkpoints", "iterations", "shards") if (folder / part).exists()]
    if held:
        raise RecipeError(
            f"{folder} holds {held[0]}, but neither stage.json nor started.json, which say with what configuration "
            f"they were made. Bring one of them back, or give --redo={name} to throw the folder away."
        )
    return None


def _read_record(path: epath.Path, name: str) -> tuple[dict, dict]:
    """A stage's record, and what of it the result depends on."""
    try:
        record = json.loads(path.read_text())
        return record, Identity(record["config"], record["inputs"]).identity_config
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"{path} is damaged ({error!r}). Bring it back, or give --redo={name} to throw the folder away."
        ) from error


def _what_changed(before: dict, now: dict, name: str, folder: epath.Path) -> str:
    was, is_now = _flat(before["config"]), _flat(now["config"])
    changes = [
        f"  config.{field}: was {was.get(field, 'absent')!r}, is {is_now.get(field, 'absent')!r}"
        for field in sorted(was.keys() | is_now.keys())
        if was.get(field, "absent") != is_now.get(field, "absent")
    ]
    changes += [
        f"  input {role}: another run than the one used then"
        for role in sorted(before["inputs"].keys() | now["inputs"].keys())
        if before["inputs"].get(role) != now["inputs"].get(role)
    ]
    return (
        f"stage {name!r} in {folder} was run with another configuration:\n" + "\n".join(changes) + "\n"
        f"Give --redo={name} to throw that stage and what depends on it away and run them again, "
        "or another --workdir to keep both."
    )


def _flat(tree: object, prefix: str = "") -> dict[str, object]:
    if isinstance(tree, dict):
        return {k: v for name, value in tree.items() for k, v in _flat(value, f"{prefix}.{name}".lstrip(".")).items()}
    return {prefix: tree}


def _run_stage(config: ConfigDict, name: str, folder: epath.Path, identity: Identity, runtime: Runtime) -> dict:
    module = importlib.import_module(config[name].run)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"stage": name, "fingerprint": identity.fingerprint, **dataclasses.asdict(identity)}
    write_json(folder / "started.json", record)
    inputs = {
        role: folder.parent / sources if isinstance(sources, str) else tuple(folder.parent / s for s in sources)
        for role, sources in config[name].get("inputs", {}).items()
    }
    logging.info("stage %s starts in %s", name, folder)
    start = time.monotonic()
    with jax.set_mesh(runtime.mesh):
        results = module.run(config[name], inputs, runtime)
    seconds = round(time.monotonic() - start, 2)
    record |= {"results": results, "seconds": seconds, "versions": versions()}
    write_json(folder / "stage.json", record)
    remove_shards(folder)
    logging.info("stage %s is done in %.1f s: %s", name, seconds, json.dumps(results)[:300])
    return record
