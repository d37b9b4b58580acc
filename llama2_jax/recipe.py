"""Runs the stages of an experiment in order: skips finished ones, resumes unfinished ones, refuses changed ones."""

import dataclasses
import datetime
import functools
import importlib
import json
import time
import types
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count, most_records
from llama2_jax.models.config import ModelConfig
from llama2_jax.paths import absolute, expand_home
from llama2_jax.pipeline.origins import stage_origins, with_origins
from llama2_jax.pipeline.resumable import remove_shards
from llama2_jax.pipeline.runtime import Runtime, devices_of, stage_key, stage_seed, versions
from llama2_jax.pipeline.stage_files import write_json
from llama2_jax.pipeline.stage_identity import Identity, RecipeError, finished_record
from llama2_jax.pipeline.stage_values import value_problems
from llama2_jax.sharding.mesh import check_divides, make_mesh
from llama2_jax.sharding.processes import from_first
from llama2_jax.training.interruption import Interruption

# Parts of the configuration that every stage depends on, in addition to its own.
SHARED_PARTS = ("seed", "model", "data")

# Roles of stages that write records and no model.
RECORDS_ALONE = ("annotation", "ranking", "ghost_attention", "context_distillation")


def run(
    config: ConfigDict,
    workdir: str,
    until: str = "",
    redo: str = "",
    interruption: Interruption | None = None,
    step_timeout: float = 0.0,
    wandb_project: str = "",
) -> dict[str, dict]:
    """Runs the experiment's stages and returns each one's record (the content of its stage.json).

    Args:
      config: an experiment's configuration: `stages` names the stages in order, `config[name]` is each one's part, and
        `given` may name a folder to take in place of a stage (stages/imported.py, stages/imported_records.py).
      workdir: a folder, local or gs://; every stage writes `<workdir>/<stage>/`.
      until: the last stage to run; empty runs all.
      redo: a stage to run again although its config or inputs have changed; stages that depend on it run again too.
      interruption: where trainings check whether the run should stop (training/interruption.py).
      step_timeout: the seconds that a training step, or a shard of answers, may take before the process ends with a
        message; 0: any.
      wandb_project: the project on W&B that metrics go to besides; "" is none.

    Raises:
      RecipeError: if a stage is unknown, an input is not provided by an earlier stage, or a stage's configuration or
        inputs differ from those of the run in the workdir.
    """
    config, names, model, mesh = plan(config, until)
    redone = _with_dependents(config, redo)
    records: dict[str, dict] = {}
    for name in names:
        folder = epath.Path(expand_home(workdir)) / name
        identity = _identity(config, name, records)
        done = from_first(functools.partial(finished_record, folder, identity, name, name in redone))
        if done is None:
            decide = functools.partial(
                stage_origins, config[name].to_dict(), config.data.root, folder, records.values()
            )
            origins = from_first(decide)
            identity = dataclasses.replace(identity, origins=origins)
        records[name] = done or _run_stage(
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
                wandb_project=wandb_project,
            )
        )  # fmt: skip
    return records


class Plan(NamedTuple):
    """A checked experiment: its configuration, its stages in order, its model and the devices."""

    config: ConfigDict
    stages: Sequence[str]
    model: ModelConfig
    mesh: Mesh


def plan(config: ConfigDict, until: str = "", devices: Sequence[jax.Device] | None = None) -> Plan:
    """Checks an experiment and makes its mesh, before anything runs.

    Args:
      config: see `run`.
      until: see `run`.
      devices: to run on; by default all.

    Raises:
      RecipeError: as `run`, if the model and the mesh do not fit each other or the devices, or if a stage cannot work
        out as configured, such as one that holds out more comparisons than its prompts can give.
    """
    config = with_given(config)
    validate(config)
    names = stages_until(config, until)
    try:
        model = ModelConfig(**config.model)
        mesh = make_mesh(**config.mesh, devices=devices)
        check_divides(dict(config.model), mesh)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    for name in names:
        check_stage(config, name, most_records)
    return Plan(config, names, model, mesh)


def validate(config: ConfigDict) -> None:
    """Raises RecipeError if the list of stages and their inputs do not fit together."""
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


def check_stage(config: ConfigDict, name: str, count: Count) -> None:
    """Checks that a stage can work out as configured: its values, and that they fit each other and those of its inputs.

    Args:
      config: the experiment, with references resolved.
      name: the stage.
      count: the records of sources, as far as they are known: data/counts.py.

    Raises:
      RecipeError: if it cannot; the message names the fields.
    """
    part = config[name]
    if problems := value_problems(part.to_dict()):
        raise RecipeError(f"config.{name}: {'; '.join(problems)}")
    if "max_new_tokens" in part and part.max_new_tokens >= config.model.max_length:
        raise RecipeError(
            f"config.{name}: max_new_tokens={part.max_new_tokens} leaves no room for a prompt in "
            f"config.model.max_length={config.model.max_length}"
        )
    module = _module(name, part.run)
    if not hasattr(module, "check"):
        return
    inputs = {
        role: config[sources] if isinstance(sources, str) else tuple(config[source] for source in sources)
        for role, sources in part.get("inputs", {}).items()
    }
    try:
        module.check(part, inputs, count)
    except ValueError as error:
        raise RecipeError(f"config.{name}: {error}") from error


def _module(name: str, path: str) -> types.ModuleType:
    wanted = "wanted the dotted path of a stage's module"
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")):
        raise RecipeError(f"config.{name}.run={path!r}: {wanted}")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise RecipeError(f"config.{name}.run={path!r}: {error}; {wanted}") from error
    if not callable(getattr(module, "run", None)):
        raise RecipeError(f"config.{name}.run={path!r}: the module has no function run; {wanted}")
    return module


def with_given(config: ConfigDict) -> ConfigDict:
    """Replaces each stage for which `config.given` names a folder by one that imports the folder.

    Where a path begins with `~`, in `given` or in data.root, it becomes the home folder.
    """
    config = config.copy_and_resolve_references()
    config.data.root = expand_home(config.data.root)
    for name, folder in config.get("given", {}).items():
        if not folder:
            continue
        if name not in config.stages:
            raise RecipeError(f"config.given.{name}: {name!r} is not a stage; the stages: {', '.join(config.stages)}")
        config[name] = _import_of(config[name], absolute(folder))
    return config


def _import_of(part: ConfigDict, folder: str) -> ConfigDict:
    """Returns the part of a stage that takes a folder in place of a stage with the given part."""
    role = part.get("role", "imported")
    # The tokenizer is compared with the model's own.
    tokenizer = part.get("inputs", {}).get("tokenizer")
    if role not in RECORDS_ALONE:
        inputs = {"inputs": {"tokenizer": tokenizer}} if tokenizer else {}
        return ConfigDict({"run": "llama2_jax.stages.imported", "role": role, "folder": folder, **inputs})
    return ConfigDict({
        "run": "llama2_jax.stages.imported_records",
        "role": role,
        "inputs": {"tokenizer": tokenizer or "tokenizer"},
        "folder": folder,
        "records_of": role,
        **({"round": part.round} if "round" in part else {}),
    })  # fmt: skip


def stages_until(config: ConfigDict, until: str) -> Sequence[str]:
    """Returns the names of the stages up to `until`; empty is all."""
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


def _run_stage(config: ConfigDict, name: str, folder: epath.Path, identity: Identity, runtime: Runtime) -> dict:
    module = _module(name, config[name].run)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"stage": name, "fingerprint": identity.fingerprint, **dataclasses.asdict(identity)}
    write_json(folder / "started.json", record)
    inputs = {
        role: folder.parent / sources if isinstance(sources, str) else tuple(folder.parent / s for s in sources)
        for role, sources in config[name].get("inputs", {}).items()
    }
    logging.info("stage %s starts in %s", name, folder)
    start = time.monotonic()
    part = ConfigDict(with_origins(config[name].to_dict(), identity.origins))
    with jax.set_mesh(runtime.mesh):
        results = module.run(part, inputs, runtime)
    seconds = round(time.monotonic() - start, 2)
    finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record |= {"results": results, "seconds": seconds, "finished": finished}
    record |= {"devices": devices_of(runtime.mesh), "versions": versions()}
    write_json(folder / "stage.json", record)
    remove_shards(folder)
    logging.info("stage %s done in %.1f s: %s", name, seconds, json.dumps(results)[:300])
    return record
