"""What a stage is handed besides its config and inputs, and how it writes small files that are whole or not there."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.data.sources import load_function
from llama2_jax.models.config import ModelConfig
from llama2_jax.sharding.processes import from_first
from llama2_jax.training.interruption import Interruption

# A stage's inputs: for each role the folder of an earlier stage, or several.
Inputs = Mapping[str, epath.Path | tuple[epath.Path, ...]]


@dataclasses.dataclass(frozen=True)
class Runtime:
    """Where and with what a stage runs.

    Attributes:
      stage: the stage's name.
      folder: the stage's own folder.
      data_root: the folder that relative paths of sources start from.
      seed: the stage's own seed, for randomness on the host.
      experiment_seed: the experiment's seed, the same for all stages: what describes the data is made from it.
      key: the stage's own key, for randomness on devices.
      mesh: the devices.
      model: the size of every model of the experiment.
      interruption: where a training looks whether the run is to stop.
      step_timeout: the seconds that a training step, or a portion of answers, may take before the process ends with a
        message; 0: any.
    """

    stage: str
    folder: epath.Path
    data_root: str
    seed: int
    experiment_seed: int
    key: jax.Array
    mesh: jax.sharding.Mesh
    model: ModelConfig
    interruption: Interruption = dataclasses.field(default_factory=Interruption)
    step_timeout: float = 0.0


def configured_function(part: ConfigDict, inputs: Inputs, runtime: Runtime) -> Callable:
    """The function that a config names by its dotted path (an annotator, a judge): the extension mechanism.

    It is called with its first argument by the stage, and by name with `seed` (the experiment's), what the config's
    `arguments` hold, and the folders of those of the stage's inputs whose role begins with "annotator". Of several
    processes the first one calls it and tells the others: it may ask people or a server, and may not draw in others
    the same way. One that has a parameter `mesh` computes on the run's devices, so all processes call it with them.

    Raises:
      ValueError: where there is no such function.
    """
    function = load_function(part.function)
    folders = {role: folder for role, folder in inputs.items() if role.startswith("annotator")}
    call = functools.partial(function, seed=runtime.experiment_seed, **folders, **part.get("arguments", {}))
    if "mesh" in inspect.signature(function).parameters:
        return functools.partial(call, mesh=runtime.mesh)
    return lambda rows: from_first(lambda: call(rows))


def stable_hash(name: str) -> int:
    """A 31-bit hash of a name that is the same in every process (Python's own is not)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1


def stage_seed(seed: int, name: str) -> int:
    """A seed of the stage's own, from the experiment's seed and the stage's name."""
    return stable_hash(f"{seed}/{name}")


def stage_key(seed: int, name: str) -> jax.Array:
    """A key of the stage's own, from the experiment's seed and the stage's name."""
    return named_key(jax.random.key(seed), name)


def named_key(key: jax.Array, name: str) -> jax.Array:
    """The key for a purpose."""
    return jax.random.fold_in(key, stable_hash(name))


def versions() -> dict[str, str]:
    """The versions that a result may depend on."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "sentencepiece", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def write_text(path: epath.Path, text: str) -> None:
    """Writes a file that is whole or not there. Of several processes the first one writes, the others wait for it."""
    draft = path.parent / f".{path.name}.draft"

    def write() -> None:
        draft.write_text(text)
        draft.replace(path)

    from_first(write)


def write_json(path: epath.Path, content: object) -> None:
    """Writes a JSON file that is whole or not there."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: epath.Path) -> dict:
    """Reads a JSON file."""
    return json.loads(path.read_text())


def write_jsonl(path: epath.Path, records: Iterable[Mapping]) -> None:
    """Writes a JSONL file that is whole or not there."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def read_jsonl(path: epath.Path) -> list[dict]:
    """Reads a JSONL file that a stage wrote."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def as_folders(value: epath.Path | Sequence[epath.Path]) -> tuple[epath.Path, ...]:
    """An input of one or several folders, as several."""
    return (value,) if isinstance(value, epath.Path) else tuple(value)
