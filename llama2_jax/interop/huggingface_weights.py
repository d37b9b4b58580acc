"""The tensors of a Hugging Face folder: in one file or many, with or without an index, wrapped, tied."""

import os
import pathlib
import re
from collections.abc import Collection, Iterable

import numpy as np

from llama2_jax.interop.checkpoint import BadCheckpoint, read_json_object
from llama2_jax.interop.safetensors_file import read_safetensors
from llama2_jax.interop.stored_tensor import StoredTensor
from llama2_jax.interop.torch_file import read_torch_file

# The names of weight files, in the order in which transformers itself looks for them.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Every Llama has it, tied or not, whatever its head.
_FINAL_NORM = "model.norm.weight"
_SHARD = re.compile(r"(?:model|pytorch_model)-(\d+)-of-(\d+)\.(safetensors|bin)")
# Buffers that older versions saved: the rotary frequencies, which follow from the config.
_IGNORED = ".rotary_emb.inv_freq"

Tensors = dict[str, StoredTensor]


def stored_tensors(folder: pathlib.Path) -> Tensors:
    """Returns a folder's tensors by the names that transformers gives them; their values are not read.

    Shards without an index are read if all are there. A prefix that all names share, such as `module.` of a model that
    was saved inside a wrapper, is removed.

    Raises:
      BadCheckpoint: if a file is missing, cut off or of another format; the message says which files were found.
    """
    # A broken link only where there is no file: reading it says what is wrong.
    there = (name for exists in (os.path.exists, os.path.lexists) for name in WEIGHT_FILES if exists(folder / name))
    name = next(there, None)
    if name is None:
        tensors = _unindexed(folder)
    elif name.endswith(".json"):
        tensors = _indexed(folder, folder / name)
    else:
        tensors = _read(folder / name)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(_IGNORED)}
    prefix = _prefix(tensors)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def with_tied_head(tensors: Tensors, tied: bool, folder: pathlib.Path) -> Tensors:
    """Returns the same tensors with the embedding and the head under both names, if they are one matrix.

    Args:
      tensors: from `stored_tensors`; of a tied pair either may be stored, or both.
      tied: what config.json says.
      folder: of the files, for messages.

    Raises:
      BadCheckpoint: if both are stored and differ, although they are tied.
    """
    embedding, head = tensors.get(EMBEDDING), tensors.get(HEAD)
    if tied and embedding and head and not _equal(embedding, head):
        raise BadCheckpoint(
            f"{folder}: config.json says tie_word_embeddings is true, but {EMBEDDING} and {HEAD} are both stored and "
            "differ. Versions of transformers differ in which they use: set tie_word_embeddings to false if the head "
            f"was trained, or remove {HEAD}"
        )
    if not tied or not (embedding or head):
        return tensors
    return tensors | {EMBEDDING: embedding or head, HEAD: head or embedding}


def check_names(tensors: Collection[str], wanted: Collection[str], folder: pathlib.Path) -> None:
    """Raises BadCheckpoint if a tensor is missing or there is one too many, naming what was found."""
    missing = [name for name in wanted if name not in tensors]
    unknown = sorted(set(tensors) - set(wanted))
    adapters = [name for name in unknown if "lora_" in name or ".base_layer." in name]
    if adapters:
        raise BadCheckpoint(
            f"{folder}: {len(adapters)} tensors of adapters, such as {adapters[0]}: merge them into the model first "
            "(merge_and_unload() of peft)"
        )
    if missing:
        advice = f"; instead there are {_some(unknown)}" if unknown else ""
        if any(name.endswith(missing[0]) for name in unknown):
            advice += ": save the model without what wraps it"
        elif missing in ([EMBEDDING], [HEAD]):
            advice += (
                "; if embedding and head are one matrix, config.json must say so: tie_word_embeddings is false there"
            )
        raise BadCheckpoint(
            f"{folder}: tensor {missing[0]!r} is missing, as are {len(missing) - 1} others of {len(wanted)}{advice}"
        )
    if unknown:
        raise BadCheckpoint(
            f"{folder}: tensors that Llama 2 does not have: {_some(unknown)}; other architectures are not supported"
        )


def _prefix(names: Collection[str]) -> str:
    """Returns what precedes every name; empty if some have another prefix: then nothing is removed.

    `module.` (DataParallel), `_orig_mod.` (torch.compile), `base_model.model.` (peft) and any other wrapper's.
    """
    found = [name.removesuffix(_FINAL_NORM) for name in names if name.endswith(_FINAL_NORM)]
    if len(found) != 1:
        return ""
    return found[0] if all(name.startswith(found[0]) for name in names) else ""


def _equal(left: StoredTensor, right: StoredTensor) -> bool:
    return (left.shape, left.dtype) == (right.shape, right.dtype) and np.array_equal(left.view(), right.view())


def _indexed(folder: pathlib.Path, index: pathlib.Path) -> Tensors:
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict):
        raise BadCheckpoint(f"{index}: the field 'weight_map' is missing")
    for file in places.values():
        named = isinstance(file, str) and pathlib.PurePath(file).name == file and file not in ("", "..")
        if not named or not os.path.lexists(folder / file):
            raise BadCheckpoint(f"{index} names the file {file!r}, which is not in {folder}")
    tensors = _merged(folder / file for file in sorted(set(places.values())))
    for name, file in places.items():
        if name not in tensors or tensors[name].path.name != file:
            raise BadCheckpoint(f"{folder / file}: tensor {name!r} is missing, but {index.name} lists it there")
    return {name: tensors[name] for name in places}


def _unindexed(folder: pathlib.Path) -> Tensors:
    """The tensors of shards that are numbered and all there: the index would only say which is where."""
    shards = {path: found for path in sorted(folder.iterdir()) if (found := _SHARD.fullmatch(path.name))}
    kinds = sorted({(found[2], found[3]) for found in shards.values()})
    if len(kinds) != 1:
        raise BadCheckpoint(_no_weights(folder, [path.name for path in shards]))
    count = int(kinds[0][0])
    if absent := sorted(set(range(1, count + 1)) - {int(found[1]) for found in shards.values()}):
        raise BadCheckpoint(
            f"{folder} has {len(shards)} of {count} files of weights ({_some([path.name for path in shards])}), and no "
            f"index: number {', '.join(map(str, absent))} is missing; download it, and the index"
        )
    return _merged(shards)


def _merged(paths: Iterable[pathlib.Path]) -> Tensors:
    """The tensors of all files; transformers would take the last of two that have one name."""
    tensors: Tensors = {}
    for path in paths:
        own = _read(path)
        if twice := sorted(own.keys() & tensors.keys()):
            raise BadCheckpoint(
                f"{path}: tensor {twice[0]!r} is in {tensors[twice[0]].path.name} too: two models' files"
            )
        tensors |= own
    return tensors


def _no_weights(folder: pathlib.Path, shards: list[str]) -> str:
    wanted = f"expected one of: {', '.join(WEIGHT_FILES)}"
    if shards:
        return f"{folder} has files of several models, {_some(shards)}, and no index; {wanted}"
    found = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt", ".pth"))
    if any(name.startswith("adapter_model") for name in found):
        return (
            f"{folder} has no weights but an adapter's ({_some(found)}): merge it into its model first "
            "(merge_and_unload() of peft)"
        )
    others = f" under these names; found {_some(found)}: rename a single file" if found else ""
    return f"{folder} has no weights{others}; {wanted}"


def _read(path: pathlib.Path) -> Tensors:
    return read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)


def _some(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:5])
    return first if len(names) <= 5 else f"{first} (of {len(names)})"
