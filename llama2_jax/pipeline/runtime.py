"""What a stage gets besides its config and inputs: where it runs, with what randomness, on which devices."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import platform
from collections.abc import Callable, Mapping

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
      experiment_seed: the experiment's seed, the same for all stages: data that functions make depend on it.
      key: the stage's own key, for randomness on devices.
      mesh: the devices.
      model: the size of every model of the experiment.
      interruption: asked by a training at each step whether the run should stop.
      step_timeout: seconds without a finished training step or shard of answers after which the process ends with a
        message; 0 is never.
      wandb_project: the project on W&B that metrics go to besides; "" is none.
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
    wandb_project: str = ""


def configured_function(part: ConfigDict, inputs: Inputs, runtime: Runtime) -> Callable:
    """Returns the function that a config names by its dotted path (an annotator, a judge, a reward).

    This is the extension mechanism. The stage calls the function with positional arguments; it also gets, by name, what
    the config's `arguments` have and, if it takes them, the folders of those of the stage's inputs whose role begins
    with "annotator", the experiment's `seed` and the stage's own, `stage_seed`. The first of several processes calls it
    and sends the result (JSON) to the others: it may ask people or a server, and may not involve the other processes. A
    function that has a parameter `mesh` computes on the run's devices, so all processes call it.

    Raises:
      ValueError: if there is no such function.
    """
    function = load_function(part.function)
    parameters = inspect.signature(function).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    call = functools.partial(
        function,
        **({"seed": runtime.experiment_seed} if takes_any or "seed" in parameters else {}),
        **({"stage_seed": runtime.seed} if "stage_seed" in parameters else {}),
        **{
            role: folder
            for role, folder in inputs.items()
            if role.startswith("annotator") and (takes_any or role in parameters)
        },
        **part.get("arguments", {}),
    )
    if "mesh" in parameters:
        return functools.partial(call, mesh=runtime.mesh)
    return lambda *arguments: from_first(lambda: call(*arguments))


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


def devices_of(mesh: jax.sharding.Mesh) -> dict[str, str | int]:
    """The devices that a result was made on: their `kind`, as JAX names it, their `count`, and the `processes`."""
    return {"kind": mesh.devices.flat[0].device_kind, "count": mesh.size, "processes": jax.process_count()}


def versions() -> dict[str, str]:
    """The versions that a result may depend on."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "sentencepiece", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
