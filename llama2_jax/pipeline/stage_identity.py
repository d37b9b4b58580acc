"""What a stage was run with, kept beside its results: a run is resumed as it was begun, or refused."""

import dataclasses
import hashlib
import json

from etils import epath

from llama2_jax.models.config import EXECUTION_FIELDS
from llama2_jax.pipeline.origins import NO_ORIGINS, Origins


class RecipeError(ValueError):
    """The experiment cannot run as configured; the message says what is wrong and what to do."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a stage was run with: its configuration, the fingerprints of its inputs, and where its data came from."""

    config: dict
    inputs: dict[str, str]
    origins: Origins = dataclasses.field(default_factory=lambda: NO_ORIGINS)

    @property
    def identity_config(self) -> dict:
        """What the result depends on: not how the model is computed, which a run may change to fit other devices."""
        model = {field: value for field, value in self.config["model"].items() if field not in EXECUTION_FIELDS}
        return {"config": {**self.config, "model": model}, "inputs": self.inputs}

    @property
    def fingerprint(self) -> str:
        """A hash of what the result depends on; through the inputs it covers everything upstream."""
        revisions = self.origins["revisions"]
        depends_on = {**self.identity_config, **({"revisions": revisions} if revisions else {})}
        return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def finished_record(folder: epath.Path, identity: Identity, name: str, redo: bool) -> dict | None:
    """Returns a finished stage's record; None if there is work to do.

    Args:
      folder: the stage's.
      identity: what it would be run with now.
      name: the stage.
      redo: whether to delete what is there.

    Raises:
      RecipeError: if the folder is another run's, or its records are damaged or missing.
    """
    if redo and folder.exists():
        folder.rmtree()
    for file in ("stage.json", "started.json"):
        if (folder / file).exists():
            record, before = _read_record(folder / file, name)
            if before != identity.identity_config:
                raise RecipeError(_what_changed(before, identity.identity_config, name, folder))
            return record if file == "stage.json" else None
    found = [part for part in ("checkpoints", "iterations", "shards") if (folder / part).exists()]
    if found:
        raise RecipeError(
            f"{folder} has {found[0]}, but neither stage.json nor started.json, which record the configuration of the "
            f"run. Restore one of them, or give --redo={name} to delete the folder."
        )
    return None


def _read_record(path: epath.Path, name: str) -> tuple[dict, dict]:
    """Reads a stage's record, and returns it with the part that the result depends on."""
    try:
        record = json.loads(path.read_text())
        return record, Identity(record["config"], record["inputs"]).identity_config
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"{path} is damaged ({error!r}). Restore it, or give --redo={name} to delete the folder."
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
        f"Give --redo={name} to delete that stage and those that depend on it and run them again, "
        "or another --workdir to keep both."
    )


def _flat(tree: object, prefix: str = "") -> dict[str, object]:
    if isinstance(tree, dict):
        return {k: v for name, value in tree.items() for k, v in _flat(value, f"{prefix}.{name}".lstrip(".")).items()}
    return {prefix: tree}
