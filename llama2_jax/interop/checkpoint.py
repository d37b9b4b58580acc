"""A checkpoint of any format: its description, and a function that reads its parameters a piece at a time.

Parameters have the names and the layout of models/llama.py, such as `trunk/layers/query` or `head/kernel`. A piece is
one of them or, if layers are stacked, one layer of it: no more than a piece has to be in memory.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
from etils import epath

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.heads import abstract_params
from llama2_jax.paths import expand_home
from llama2_jax.text.chat_formats import FILE as CHAT_FORMAT
from llama2_jax.text.tokenizer import Tokenizer

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
STACKED = "trunk/layers/"

# How many elements are checked for NaN at once: a few MB of temporary results.
_AT_ONCE = 1 << 22

# A part of a parameter: a slice for each of its dimensions.
Index = tuple[slice, ...]


class BadCheckpoint(ValueError):
    """Files are not a usable checkpoint; the message names file and tensor and says what is expected."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """An opened model on disk: its names, shapes and file sizes are checked, its values not yet read.

    Attributes:
      kind: `orbax`, `huggingface`, `meta` or `peft`.
      folder: of the files.
      config: the network. Formats that do not say how it is computed get the defaults, in bfloat16 for 16-bit weights.
      head: `language` or `scalar`.
      dtype: of the weights as stored; the widest if they differ.
      tokenizer_model: the model's SentencePiece model, if there is one.
      read: (name, layer=None, index=None) -> the piece, or the part of it that the index selects, in the dtype as
        stored. The result may be a view of the file: copy it to keep it.
      quantized: the form of the layers' matrices if they are in few bits (models/quantized.py); `read` restores them.
      adapters: interop/adapters.py's, of a model that was trained with some; `read` has them added already.
    """

    kind: str
    folder: pathlib.Path
    config: ModelConfig
    head: str
    dtype: np.dtype
    tokenizer_model: pathlib.Path | None
    read: Callable[..., np.ndarray]
    quantized: str = ""
    adapters: Any = None


@dataclasses.dataclass(frozen=True)
class Piece:
    """One parameter, or one layer of a stacked one: its name, the layer, and its own shape."""

    name: str
    layer: int | None
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.name if self.layer is None else f"{self.name}, layer {self.layer}"


@functools.lru_cache
def parameter_shapes(config: ModelConfig, head: str) -> Mapping[str, tuple[int, ...]]:
    """Returns the shape of each parameter of a model, with the layer axis of stacked ones, by name."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(abstract_params(config, head))
    return types.MappingProxyType(
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
    )


def pieces(config: ModelConfig, head: str) -> Iterator[Piece]:
    """Yields all pieces of a model: one parameter after the other, each from its first layer to its last."""
    for name, shape in parameter_shapes(config, head).items():
        if name.startswith(STACKED):
            yield from (Piece(name, layer, shape[1:]) for layer in range(shape[0]))
        else:
            yield Piece(name, None, shape)


def widest(dtypes: Iterable[np.dtype]) -> np.dtype:
    """Returns a dtype that represents all of these without loss."""
    different = set(dtypes)
    return different.pop() if len(different) == 1 else DTYPES["float32"]


def compute_dtype(stored: np.dtype) -> str:
    """Returns the compute dtype for weights whose format does not name one: as wide as the weights."""
    return "float32" if stored == DTYPES["float32"] else "bfloat16"


def local_folder(path: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a folder on this machine, with `~` expanded.

    Raises:
      BadCheckpoint: if it is an address of another storage: files are memory-mapped, which needs local ones.
    """
    if "://" in os.fspath(path):
        raise BadCheckpoint(f"{path} is not on this machine: conversion reads and writes local folders, copy it first")
    return pathlib.Path(expand_home(path))


def read_json_object(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON file that contains an object.

    Raises:
      BadCheckpoint: if the file is missing, cannot be read or contains something else.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BadCheckpoint(f"{path} is missing") from error
    except OSError as error:
        raise BadCheckpoint(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadCheckpoint(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{path} contains a {type(content).__name__}, expected an object with fields")
    return content


def copy_tokenizer(tokenizer_model: epath.PathLike, target: epath.PathLike) -> None:
    """Copies a tokenizer.model into a folder, and the file beside it that names its chat format, if there is one."""
    source, target = epath.Path(tokenizer_model), epath.Path(target)
    source.copy(target / "tokenizer.model", overwrite=True)
    if (beside := source.parent / CHAT_FORMAT).exists():
        beside.copy(target / CHAT_FORMAT, overwrite=True)


def check_tokenizer(path: pathlib.Path, vocab_size: int) -> Tokenizer:
    """Reads the tokenizer of a model.

    Raises:
      BadCheckpoint: if the file is not a tokenizer, or its number of tokens differs from the embedding's rows.
    """
    try:
        tokenizer = Tokenizer.load(path)
    except (ValueError, OSError) as error:
        raise BadCheckpoint(f"{path}: {error}") from error
    if tokenizer.vocab_size != vocab_size:
        raise BadCheckpoint(
            f"{path} has {tokenizer.vocab_size} tokens and the model's embedding {vocab_size} rows: it is "
            "another model's tokenizer, or tokens were added to the model; give the right one, or resize the embedding"
        )
    return tokenizer


def refuse_nan(checkpoint: Checkpoint) -> Checkpoint:
    """Returns the same checkpoint, whose `read` raises BadCheckpoint for a piece with NaN or infinity."""

    def read(name: str, layer: int | None = None, index: Index | None = None) -> np.ndarray:
        array = checkpoint.read(name, layer, index)
        if wrong := _count_not_finite(array):
            where = name if layer is None else f"{name}, layer {layer}"
            raise BadCheckpoint(
                f"{checkpoint.folder}: {wrong} of {array.size} values of {where} are NaN or infinite; "
                "such a model is broken (--allow_nan converts it anyway)"
            )
        return array

    return dataclasses.replace(checkpoint, read=read)


def cast(array: np.ndarray, dtype: np.dtype, label: str) -> np.ndarray:
    """Returns the array in a dtype, contiguous in memory; the array itself if it is so already.

    Raises:
      BadCheckpoint: if finite values become infinite.
    """
    if array.dtype == dtype and array.flags.c_contiguous:
        return array
    out = np.empty(array.shape, dtype)
    with np.errstate(over="ignore"):
        np.copyto(out, array, casting="unsafe")
    if array.dtype != dtype and _count_not_finite(out) > _count_not_finite(array):
        raise BadCheckpoint(f"{label} has values too large for {dtype}: choose bfloat16 or float32")
    return out


def _count_not_finite(array: np.ndarray) -> int:
    if array.ndim > 1 and array.strides[0] < array.strides[-1]:
        array = array.T  # along memory
    rows = max(1, _AT_ONCE // max(1, math.prod(array.shape[1:])))
    return sum(
        block.size - int(np.count_nonzero(np.isfinite(block)))
        for block in (array[first : first + rows] for first in range(0, len(array), rows))
    )
