"""Adapters in the layout of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors.

PEFT's A is [rank, inputs] and its B [outputs, rank], the transposes of ours; the rows of B of queries and keys are in
transformers' order (names.py). A scalar model's head is among the tensors, as one of PEFT's `modules_to_save`.
"""

import json
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from llama2_jax.interop.adapters import HEAD, StoredAdapters
from llama2_jax.interop.checkpoint import DTYPES, STACKED, BadCheckpoint, Checkpoint, cast, read_json_object, widest
from llama2_jax.interop.names import NAMING, features_of_ours, rows_of_theirs
from llama2_jax.interop.safetensors_file import SafetensorsWriter, read_safetensors
from llama2_jax.interop.stored_tensor import StoredTensor, check_stored
from llama2_jax.models.adapters import TARGETS, AdapterConfig, matrix_shapes
from llama2_jax.models.config import ModelConfig

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTORS = {"a": "lora_A", "b": "lora_B"}
# Fields of adapter_config.json that ask for more than W + scale A B on all layers, and the values that do not.
_PLAIN = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None,),
    "lora_bias": (False, None),
    "modules_to_save": (None, [], ["score"]),
}


def base_of(folder: pathlib.Path) -> str:
    """Returns what a folder's adapter_config.json says its base is: a folder, or an address on the hub.

    Raises:
      BadCheckpoint: if it does not say one.
    """
    path = folder / CONFIG_FILE
    base = read_json_object(path).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise BadCheckpoint(f"{path} names no base_model_name_or_path: give --base=<folder or hf://<org>/<name>>")
    on_the_hub = not pathlib.Path(base).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", base)
    return f"hf://{base}" if on_the_hub else base


def open_peft(folder: pathlib.Path, model: ModelConfig, base: str) -> StoredAdapters:
    """Opens adapters; checks names, shapes and dtypes of all tensors without reading their values.

    Args:
      folder: with adapter_config.json and adapter_model.safetensors.
      model: the base's sizes.
      base: where the base is.

    Raises:
      BadCheckpoint: if a file is missing or broken, the adapters are of another kind, or do not fit the base.
    """
    described = read_json_object(folder / CONFIG_FILE)
    for field, plain in _PLAIN.items():
        if described.get(field) not in plain:
            raise BadCheckpoint(
                f"{folder / CONFIG_FILE}: {field} is {described.get(field)!r}, supported is {plain[0]!r}: merge these "
                "adapters into the model first (merge_and_unload() of peft)"
            )
    tensors = read_safetensors(folder / WEIGHTS_FILE)
    targets = tuple(name for name in TARGETS if _name(name, "a", 0) in tensors)
    try:
        rank, alpha = described["r"], described["lora_alpha"]
        scaled = alpha * math.sqrt(rank) if described.get("use_rslora") else alpha
        adapters = AdapterConfig(rank, scaled, targets, described.get("lora_dropout") or 0.0)
    except (KeyError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"{folder / CONFIG_FILE}: {error!r}") from error
    head = _PREFIX + NAMING["scalar"][HEAD].huggingface
    wanted = _shapes(model, adapters) | ({head: (1, model.dim)} if described.get("modules_to_save") else {})
    if different := sorted(wanted.keys() ^ tensors.keys()):
        raise BadCheckpoint(
            f"{folder / WEIGHTS_FILE}: {len(different)} tensors are missing or not of Llama 2's layers, such as "
            f"{different[0]}"
        )
    for name, shape in wanted.items():
        check_stored(tensors[name], shape, DTYPES)

    return StoredAdapters(
        adapters,
        base,
        widest(tensor.dtype for tensor in tensors.values()),
        _reader(tensors, model),
        (lambda: tensors[head].view().T) if head in wanted else None,
    )


def write_peft(
    checkpoint: Checkpoint,
    target: pathlib.Path,
    dtype: np.dtype,
    base: str = "",
    progress: Callable[[int], Any] = lambda size: None,
) -> None:
    """Writes a model's adapters so that PEFT loads them.

    Args:
      checkpoint: a model that was trained with adapters.
      target: an existing, empty folder.
      dtype: of the factors written.
      base: what adapter_config.json names as the base, in transformers' format; by default our base's folder.
      progress: called with the number of elements of each tensor when it is written.

    Raises:
      BadCheckpoint: if the model has no adapters of its own, or they have NaN or infinity.
    """
    if checkpoint.adapters is None:
        raise BadCheckpoint(
            f"{checkpoint.folder} is a whole model: only one that was trained with adapters can be written as adapters"
        )
    stored, model = checkpoint.adapters, checkpoint.config
    scalar = checkpoint.head == "scalar"
    head = _PREFIX + NAMING["scalar"][HEAD].huggingface
    shapes = _shapes(model, stored.config) | ({head: (1, model.dim)} if scalar else {})
    writer = SafetensorsWriter(target / WEIGHTS_FILE, shapes, dtype)

    def write(name: str, array: np.ndarray) -> None:
        if not np.isfinite(array.astype(np.float32)).all():
            raise BadCheckpoint(f"{checkpoint.folder}: {name} has NaN or infinite values; such a model is broken")
        writer.write(name, cast(array, dtype, name))
        progress(array.size)

    try:
        for name in stored.config.targets:
            rows = _rotated(name, model, features_of_ours)
            for layer in range(model.layers):
                write(_name(name, "a", layer), stored.read(name, "a", layer).T)
                b = stored.read(name, "b", layer).T
                write(_name(name, "b", layer), b if rows is None else b[rows])
        if scalar:
            write(head, stored.head().T)
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    described = _described(stored.config, base or stored.base, scalar)
    (target / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _described(adapters: AdapterConfig, base: str, scalar: bool) -> dict[str, Any]:
    """Returns the content of adapter_config.json."""
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if scalar else "CAUSAL_LM",
        "base_model_name_or_path": base.removeprefix("hf://"),
        "r": adapters.rank,
        "lora_alpha": adapters.alpha,
        "lora_dropout": adapters.dropout,
        "target_modules": [_module(name).rpartition(".")[2] for name in adapters.targets],
        "modules_to_save": ["score"] if scalar else None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "use_dora": False,
        "use_rslora": False,
    }


def _shapes(model: ModelConfig, adapters: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each factor in PEFT's layout, by name."""
    sizes = matrix_shapes(model)
    return {
        _name(name, factor, layer): shape
        for name in adapters.targets
        for layer in range(model.layers)
        for factor, shape in (("a", (adapters.rank, sizes[name][0])), ("b", (sizes[name][1], adapters.rank)))
    }


def _reader(tensors: Mapping[str, StoredTensor], model: ModelConfig) -> Callable[[str, str, int], np.ndarray]:
    def read(target: str, factor: str, layer: int) -> np.ndarray:
        array = tensors[_name(target, factor, layer)].view()
        rows = _rotated(target, model, rows_of_theirs) if factor == "b" else None
        return array.T if rows is None else array[rows].T

    return read


def _rotated(target: str, model: ModelConfig, order: Callable[[int, int], np.ndarray]) -> np.ndarray | None:
    """Returns the order of a matrix's rows that transformers rotates otherwise; None for all others."""
    heads = NAMING["language"][STACKED + target].rotated
    return order(getattr(model, heads), model.head_dim) if heads else None


def _module(target: str, layer: int | str = "{}") -> str:
    return NAMING["language"][STACKED + target].huggingface.removesuffix(".weight").format(layer)


def _name(target: str, factor: str, layer: int) -> str:
    return f"{_PREFIX}{_module(target, layer)}.{_FACTORS[factor]}.weight"
