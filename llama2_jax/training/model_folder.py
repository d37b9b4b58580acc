"""A trained model on disk: model.json, which describes the network, and checkpoints/ with its parameters.

Of a model that was trained with adapters the checkpoints have the adapters alone, and model.json names its base. Of one
whose matrices are in few bits the checkpoints have these, and model.json names the form, `quantized`.
"""

import dataclasses
import json

import jax
from etils import epath
from jax.sharding import Mesh, SingleDeviceSharding

from llama2_jax.models.adapters import adapt, frozen_layers, merge
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.heads import HEADS, abstract_params, build_model
from llama2_jax.models.llama import parameter_shardings, quantized_shapes
from llama2_jax.models.quantized import quantization
from llama2_jax.training.adaptation import Adaptation, restore_trained
from llama2_jax.training.atomic_files import write_atomically
from llama2_jax.training.checkpoint_folder import CheckpointError, link_checkpoint
from llama2_jax.training.checkpoints import restore_params
from llama2_jax.training.state import Params


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model: the network's sizes, its head (`language` or `scalar`) and its parameters."""

    config: ModelConfig
    head: str
    params: Params


def save_model_description(
    folder: epath.PathLike,
    config: ModelConfig,
    head: str,
    adaptation: Adaptation | None = None,
    quantized: str = "",
) -> None:
    """Writes `<folder>/model.json`, whole or not at all.

    Args:
      folder: the folder whose checkpoints/ has, or will have, the parameters; created if absent.
      config: the network.
      head: `language` for a LanguageModel, `scalar` for a ScalarModel.
      adaptation: the adapters, if the checkpoints have these alone.
      quantized: the form of the layers' matrices, if they are in few bits (models/quantized.py).
    """
    _check_head(head, "head")
    path = epath.Path(folder) / "model.json"
    if jax.process_index() == 0:
        content = {"head": head, "config": dataclasses.asdict(config)}
        if adaptation is not None:
            content |= adaptation.described(epath.Path(folder))
        if quantized:
            content["quantized"] = quantized
        write_atomically(path, json.dumps(content, indent=2) + "\n")


def take_model(source: epath.PathLike, target: epath.PathLike, step: int) -> None:
    """Makes the model that a folder has at a step that of another folder; to be called by one process only.

    Args:
      source: a folder with model.json and checkpoints/.
      target: another one; it gets model.json, and in checkpoints/ a link to that step's checkpoint.
      step: of the checkpoint.
    """
    source, target = epath.Path(source), epath.Path(target)
    describe_model_of(source, target)
    link_checkpoint(source / "checkpoints", target / "checkpoints", step)


def describe_model_of(source: epath.Path, target: epath.Path) -> None:
    """Copies a model's description to another folder; adapters' names where their base is as seen from there."""
    if adaptation := load_adaptation(source):
        adaptation.check_base(source)
        save_model_description(target, *load_model_description(source), adaptation)
    else:
        (source / "model.json").copy(target / "model.json", overwrite=True)


def load_model_description(folder: epath.PathLike) -> tuple[ModelConfig, str]:
    """Returns the network and the head that `<folder>/model.json` describes.

    Raises:
      CheckpointError: if the file is absent, or does not describe a model.
    """
    path = epath.Path(folder) / "model.json"
    content = _read_description(path)
    try:
        config, head = ModelConfig(**content["config"]), content["head"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a model: {error}") from error
    _check_head(head, f"{path}: head")
    return config, head


def load_adaptation(folder: epath.PathLike) -> Adaptation | None:
    """Returns the adapters that `<folder>/model.json` describes, and the base; None for a model without adapters.

    Raises:
      CheckpointError: if the file is absent, or describes no such adapters.
    """
    path = epath.Path(folder) / "model.json"
    content = _read_description(path)
    try:
        return Adaptation.of(content, path.parent) if "adapters" in content else None
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe adapters and their base: {error!r}") from error


def load_quantized(folder: epath.PathLike) -> str:
    """Returns the form in few bits that `<folder>/model.json` names, "" if it names none.

    Raises:
      CheckpointError: if the file is absent, or names another one.
    """
    path = epath.Path(folder) / "model.json"
    name = _read_description(path).get("quantized", "")
    try:
        quantization(name)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return name


def _read_description(path: epath.Path) -> dict:
    if not path.exists():
        raise CheckpointError(
            f"{path} is missing: {path.parent} has no model, or the stage that makes it has not started"
        )
    try:
        return dict(json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a model: {error}") from error


def tokenizer_path(folder: epath.PathLike) -> epath.Path | None:
    """Returns the tokenizer.model of a model: in its folder or, for a stage of a run, in that of its tokenizer.

    None if there is none.

    Raises:
      CheckpointError: if the folder has a stage.json that is not one.
    """
    folder = epath.Path(folder)
    places = [folder]
    record = folder / "stage.json"
    if record.exists():
        # An input is recorded as role/stage; the stages of a run are sibling folders.
        try:
            inputs = json.loads(record.read_text())["inputs"].keys()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{record} is not the record of a stage: {error}") from error
        places += [folder.parent / key.partition("/")[2] for key in inputs if key.startswith("tokenizer/")]
    places.append(folder.parent / "tokenizer")
    return next((place / "tokenizer.model" for place in places if (place / "tokenizer.model").exists()), None)


def check_head(found: str, wanted: str, where: object) -> None:
    """Raises CheckpointError if a model's head is not the wanted one."""
    if found != wanted:
        names = {"language": "a language model, which generates text", "scalar": "a reward model, which gives scores"}
        raise CheckpointError(f"{where} is {names[found]}; what is needed here is {names[wanted]}")


def load_model(
    folder: epath.PathLike, mesh: Mesh | None = None, head: str | None = None, step: int | None = None
) -> LoadedModel:
    """Loads the model that model.json describes, with the parameters of the newest checkpoint.

    A model whose matrices are in few bits has them so (models/quantized.py): it can be applied, and adapters can be
    trained beside it. Adapters are added to their base's matrices, as few bits left these if they were trained beside
    such: what is returned is a model as any other.

    Args:
      folder: a folder with model.json and checkpoints/.
      mesh: the devices to shard the parameters over, by the rules of sharding/axes.py; by default all are on the first
        one.
      head: what the model must be, `language` or `scalar`; None for either.
      step: another checkpoint than the newest.

    Raises:
      CheckpointError: if model.json or a checkpoint is absent (the message says which) or does not fit, if the model
        has another head, or if the base of adapters is not what it was.
    """
    folder = epath.Path(folder)
    config, found = load_model_description(folder)
    check_head(found, head or found, folder)
    head = found
    if adaptation := load_adaptation(folder):
        adaptation.check_base(folder)
        base = frozen_layers(load_model(adaptation.base, mesh).params, adaptation.adapters)
        trained = restore_trained(folder, config, head, adaptation.adapters, mesh, step)
        return LoadedModel(config, head, merge(adapt(base, trained, adaptation.adapters)))
    shapes = abstract_params(config, head)
    if mesh is None:
        alone = SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: alone, shapes)
    else:
        shardings = parameter_shardings(build_model(config, head), mesh)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )
    abstract = quantized_shapes(abstract, quantization(load_quantized(folder)), mesh)
    return LoadedModel(config, head, restore_params(folder / "checkpoints", abstract, step))


def _check_head(head: str, where: str) -> None:
    if head not in HEADS:
        raise CheckpointError(f"{where} is {head!r}; it must be one of: {', '.join(HEADS)}")
