"""Reads a Hugging Face folder: config.json with safetensors, or the older pytorch_model.bin, one file or many."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from llama2_jax.interop.checkpoint import (
    DTYPES,
    BadCheckpoint,
    Checkpoint,
    Index,
    check_tokenizer,
    compute_dtype,
    local_folder,
    read_json_object,
    widest,
)
from llama2_jax.interop.names import NAMING, rows_of_theirs, stored_pieces, transposed
from llama2_jax.interop.safetensors_file import read_safetensors
from llama2_jax.interop.stored_tensor import StoredTensor, check_stored
from llama2_jax.interop.torch_file import read_torch_file
from llama2_jax.models.config import ModelConfig

HEADS = {"LlamaForCausalLM": "language", "LlamaForSequenceClassification": "scalar"}
# The names of weight files, in the order in which transformers itself looks for them.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Fields that can change the network into one that we do not have, with the values that do not.
_PLAIN = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_scaling": (None,),
    "partial_rotary_factor": (1.0,),
    "quantization_config": (None,),
}
# Buffers that older versions saved: the rotary frequencies, which follow from the config.
_IGNORED = ".rotary_emb.inv_freq"


def open_huggingface(path: str | pathlib.Path) -> Checkpoint:
    """Opens a folder; checks names, shapes and dtypes of all tensors without reading their values.

    Args:
      path: a local folder with config.json and weights of a LlamaForCausalLM, or of a LlamaForSequenceClassification
        with one label, which is a scalar model. A tied output head is read as a copy of the embedding.

    Raises:
      BadCheckpoint: if the architecture is another one, a file is missing or cut off, a tensor is missing, unknown or
        of another shape, or tokenizer.model does not fit.
    """
    folder = local_folder(path)
    described = read_json_object(folder / "config.json")
    head = _head(described, folder / "config.json")
    tensors = _tensors(folder)
    tied = head == "language" and described.get("tie_word_embeddings", False)
    wanted = list(stored_pieces(_config(described, folder / "config.json", DTYPES["float32"]), head, "huggingface"))
    if tied:
        tensors["lm_head.weight"] = tensors.get("model.embed_tokens.weight")
    for stored in wanted:
        if tensors.get(stored.name) is None:
            raise BadCheckpoint(f"{folder}: tensor {stored.name!r} is missing")
        check_stored(tensors[stored.name], stored.shape, DTYPES)
    if unknown := sorted(tensors.keys() - {stored.name for stored in wanted}):
        raise BadCheckpoint(
            f"{folder}: tensors that Llama 2 does not have: {', '.join(unknown[:5])} (of {len(unknown)}); merge "
            "adapters into the model first; other architectures are not supported"
        )
    dtype = widest(tensors[stored.name].dtype for stored in wanted)
    config = _config(described, folder / "config.json", dtype)
    tokenizer_model = folder / "tokenizer.model"
    if tokenizer_model.exists():
        check_tokenizer(tokenizer_model, config.vocab_size)
    return Checkpoint(
        kind="huggingface",
        folder=folder,
        config=config,
        head=head,
        dtype=dtype,
        tokenizer_model=tokenizer_model if tokenizer_model.exists() else None,
        read=_reader(tensors, config, head),
    )


def _reader(tensors: Mapping[str, StoredTensor], config: ModelConfig, head: str):
    def read(name: str, layer: int | None = None, index: Index | None = None) -> np.ndarray:
        naming = NAMING[head][name]
        array = tensors[naming.huggingface.format(layer)].view()
        index = (slice(None),) * array.ndim if index is None else index
        if not transposed(name):
            return array[index]
        inputs, outputs = index
        if naming.rotated:
            rows = rows_of_theirs(getattr(config, naming.rotated), config.head_dim)
            return array[rows[outputs], inputs].T
        return array[outputs, inputs].T

    return read


def _head(described: Mapping[str, Any], path: pathlib.Path) -> str:
    names = described.get("architectures") or []
    if described.get("model_type") != "llama" or len(names) != 1 or names[0] not in HEADS:
        raise BadCheckpoint(
            f"{path}: model_type {described.get('model_type')!r} with architectures {names} is not supported; expected "
            f"'llama' with one of: {', '.join(HEADS)}"
        )
    if HEADS[names[0]] == "scalar":
        labels = len(described["id2label"]) if "id2label" in described else described.get("num_labels", 2)
        if labels != 1:
            raise BadCheckpoint(f"{path}: the classifier has {labels} labels; a scalar model has 1")
    return HEADS[names[0]]


def _config(described: Mapping[str, Any], path: pathlib.Path, dtype: np.dtype) -> ModelConfig:
    rope = described.get("rope_parameters") or {}  # transformers 5 has rope_theta and rope_scaling there
    theta = described.get("rope_theta", rope.get("rope_theta", 10000.0))
    if rope.get("rope_type", "default") != "default":
        raise BadCheckpoint(f"{path}: rope_parameters {rope}: scaled rotary positions are not Llama 2's")
    for field, plain in _PLAIN.items():
        if described.get(field, plain[0]) not in plain:
            raise BadCheckpoint(f"{path}: {field} is {described[field]!r}; Llama 2 has {plain[0]!r}")
    try:
        heads = described["num_attention_heads"]
        config = ModelConfig(
            vocab_size=described["vocab_size"],
            dim=described["hidden_size"],
            layers=described["num_hidden_layers"],
            heads=heads,
            kv_heads=described.get("num_key_value_heads") or heads,
            ffn_hidden=described["intermediate_size"],
            max_length=described.get("max_position_embeddings", 2048),  # transformers' own default
            norm_eps=float(described.get("rms_norm_eps", 1e-6)),
            rope_theta=float(theta),
            compute_dtype=compute_dtype(dtype),
        )
    except KeyError as error:
        raise BadCheckpoint(f"{path}: the field {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise BadCheckpoint(f"{path}: {error}") from error
    if (described.get("head_dim") or config.head_dim) != config.head_dim:
        raise BadCheckpoint(
            f"{path}: head_dim is {described['head_dim']}; Llama 2 has hidden_size / heads = {config.head_dim}"
        )
    return config


def _tensors(folder: pathlib.Path) -> dict[str, StoredTensor | None]:
    name = next((name for name in WEIGHT_FILES if (folder / name).exists()), None)
    if name is None:
        raise BadCheckpoint(f"{folder} has no weights; expected one of: {', '.join(WEIGHT_FILES)}")
    path = folder / name
    tensors = _indexed(folder, path) if path.suffix == ".json" else _read_weights(path)
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_IGNORED)}


def _indexed(folder: pathlib.Path, index: pathlib.Path) -> dict[str, StoredTensor]:
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict):
        raise BadCheckpoint(f"{index}: the field 'weight_map' is missing")
    files = {}
    for file in sorted(set(places.values())):
        if pathlib.PurePath(file).name != file or not (folder / file).exists():
            raise BadCheckpoint(f"{index} names the file {file!r}, which is not in {folder}")
        files[file] = _read_weights(folder / file)
    for name, file in places.items():
        if name not in files[file]:
            raise BadCheckpoint(f"{folder / file}: tensor {name!r} is missing, but {index.name} lists it there")
    return {name: files[file][name] for name, file in places.items()}


def _read_weights(path: pathlib.Path) -> dict[str, StoredTensor]:
    return read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
