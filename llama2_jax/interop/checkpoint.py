"""What a checkpoint is, whatever its format: a description, and a way to read its parameters a piece at a time.

Parameters have the names and the layout of models/llama.py, `trunk/layers/query` or `head/kernel`. A piece is one of
them or, where layers are stacked, one layer of it: nobody has to hold more than a piece in memory.
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

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.heads import abstract_params
from llama2_jax.text.tokenizer import Tokenizer

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
STACKED = "trunk/layers/"

# How many elements are looked at at once in search of NaN: a few MB of temporary results.
_AT_ONCE = 1 << 22

# A part of a parameter: a slice for each of its dimensions.
Index = tuple[slice, ...]


class BadCheckpoint(ValueError):
    """Files that are no checkpoint that can be used; the message names file and tensor and says what would be right."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model on disk, opened: its names, shapes and file sizes are checked, its numbers not yet read.

    Attributes:
      kind: `orbax`, `huggingface` or `meta`.
      folder: where it is.
      config: the network. Formats that do not say how it is computed get the defaults, in bfloat16 for 16-bit weights.
      head: `language` or `scalar`.
      dtype: of the weights as stored; the widest where they differ.
      tokenizer_model: the SentencePiece model that belongs to it, if there is one.
      read: (name, layer=None, index=None) -> the piece, or the part of it that the index takes, in the dtype as stored.
        The result may be a view of the file: copy what is to be kept.
    """

    kind: str
    folder: pathlib.Path
    config: ModelConfig
    head: str
    dtype: np.dtype
    tokenizer_model: pathlib.Path | None
    read: Callable[..., np.ndarray]


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
        """How messages name it."""
        return self.name if self.layer is None else f"{self.name}, layer {self.layer}"


@functools.lru_cache
def parameter_shapes(config: ModelConfig, head: str) -> Mapping[str, tuple[int, ...]]:
    """For each parameter of a model its shape, stacked over layers where it is; names as `trunk/layers/query`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(abstract_params(config, head))
    return types.MappingProxyType(
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
    )


def pieces(config: ModelConfig, head: str) -> Iterator[Piece]:
    """All pieces of a model: the parameters in turn, each from its first layer to its last."""
    for name, shape in parameter_shapes(config, head).items():
        if name.startswith(STACKED):
            yield from (Piece(name, layer, shape[1:]) for layer in range(shape[0]))
        else:
            yield Piece(name, None, shape)


def widest(dtypes: Iterable[np.dtype]) -> np.dtype:
    """The dtype that holds all of these without loss."""
    different = set(dtypes)
    return different.pop() if len(different) == 1 else DTYPES["float32"]


def compute_dtype(stored: np.dtype) -> str:
    """The compute dtype for weights of a format that does not say: as wide as the weights."""
    return "float32" if stored == DTYPES["float32"] else "bfloat16"


def local_folder(path: str | os.PathLike) -> pathlib.Path:
    """The path of a folder on this machine.

    Raises:
      BadCheckpoint: for an address of another storage: files are mapped into memory, which only local ones can be.
    """
    if "://" in os.fspath(path):
        raise BadCheckpoint(f"{path} is not on this machine: conversion reads and writes local folders, copy it first")
    return pathlib.Path(path)


def read_json_object(path: pathlib.Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      BadCheckpoint: where there is no such file, or it holds something else.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BadCheckpoint(f"{path} is missing") from error
    except ValueError as error:
        raise BadCheckpoint(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{path} holds a {type(content).__name__}, wanted is an object with fields")
    return content


def check_tokenizer(path: pathlib.Path, vocab_size: int) -> Tokenizer:
    """Reads the tokenizer of a model.

    Raises:
      BadCheckpoint: where it is none, or has another number of tokens than the model's embedding has rows.
    """
    try:
        tokenizer = Tokenizer.load(path)
    except (ValueError, FileNotFoundError) as error:
        raise BadCheckpoint(f"{path}: {error}") from error
    if tokenizer.vocab_size != vocab_size:
        raise BadCheckpoint(
            f"{path} has {tokenizer.vocab_size} tokens and the model's embedding {vocab_size} rows: it is "
            "another model's tokenizer, or tokens were added to the model; give the right one, or resize the embedding"
        )
    return tokenizer


def refuse_nan(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint, whose `read` raises BadCheckpoint for a piece that holds NaN or infinity."""

    def read(name: str, layer: int | None = None, index: Index | None = None) -> np.ndarray:
        array = checkpoint.read(name, layer, index)
        if wrong := _count_not_finite(array):
            where = name if layer is None else f"{name}, layer {layer}"
            raise BadCheckpoint(
                f"{checkpoint.folder}: {where} holds {wrong} of {array.size} values that are NaN or infinite; "
                "such a model is broken (--allow_nan converts it nevertheless)"
            )
        return array

    return dataclasses.replace(checkpoint, read=read)


def cast(array: np.ndarray, dtype: np.dtype, label: str) -> np.ndarray:
    """The array in a dtype, contiguous in memory; the array itself where it is so already.

    Raises:
      BadCheckpoint: where finite values become infinite.
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
