"""Writes and reads the parameters of a model folder a layer at a time, for models that do not fit memory.

The result is a checkpoint as `Checkpoints` writes it, with parameters only; Orbax restores it as any other. Orbax
itself can write only arrays that are in memory as a whole.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath

from llama2_jax.training.checkpoint_folder import CheckpointError, check_whole, mark_finished, newest_checkpoint
from llama2_jax.training.checkpoints import CHUNK_BYTES

# The step of a checkpoint that was not made by a training of ours.
STEP = 0
_HANDLER = "orbax.checkpoint._src.handlers.{0}_checkpoint_handler.{1}CheckpointHandler"


class ParamsWriter:
    """A checkpoint of parameters, written a layer at a time, in any order; finished by `close`."""

    def __init__(self, folder: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], stacked: str, dtype: np.dtype):
        """
        Args:
          folder: the model's folder; its checkpoints/ must not exist.
          shapes: of each parameter, by name (`trunk/layers/query`), with the layer axis of stacked ones.
          stacked: the prefix of the names of stacked parameters.
          dtype: on disk. Parameters are always restored as float32: a narrower one only saves space.
        """
        self._step = step = folder.resolve() / "checkpoints" / str(STEP)
        self._params = step / "params"
        self._params.mkdir(parents=True)
        self._context, self._arrays = ts.Context(), {}
        self._missing: set[tuple[str, int | None]] = set()
        for name, shape in shapes.items():
            self._missing |= {(name, layer) for layer in (range(shape[0]) if name.startswith(stacked) else [None])}
            spec = {
                "driver": "zarr",
                "kvstore": _place(self._params, name),
                "metadata": {
                    "shape": list(shape),
                    "chunks": _chunks(shape, name.startswith(stacked), dtype.itemsize),
                    "compressor": {"id": "zstd", "level": 1},
                    "dtype": _zarr_name(dtype),
                },
            }
            self._arrays[name] = ts.open(spec, create=True, context=self._context).result()
        _write_json(self._params / "_METADATA", _tree_metadata(shapes))
        (step / "meta").mkdir()
        # What `Checkpoints` compares with the model: the parameters as they are restored.
        arrays = {"params": {name: f"float32{list(shape)}" for name, shape in shapes.items()}}
        _write_json(step / "meta" / "metadata", {"meta": {}, "arrays": arrays})
        handlers = {"params": _HANDLER.format("standard", "Standard"), "meta": _HANDLER.format("json", "Json")}
        _write_json(step / "_CHECKPOINT_METADATA", {"item_handlers": handlers})

    def write(self, name: str, layer: int | None, array: np.ndarray) -> None:
        """Writes a parameter, or one layer of a stacked one."""
        place = self._arrays[name] if layer is None else self._arrays[name][layer]
        place.write(array).result()
        self._missing.discard((name, layer))

    def close(self) -> None:
        """Marks the checkpoint as finished.

        Raises:
          ValueError: if parameters are not yet written: they would be read as zeros.
        """
        if self._missing:
            name, layer = min(self._missing, key=str)
            raise ValueError(f"not written: {len(self._missing)} parameters or layers, such as {name}, layer {layer}")
        mark_finished(epath.Path(self._step))


class ParamsReader:
    """The parameters of a model folder's newest checkpoint, read a layer at a time.

    A chunk can only be uncompressed as a whole. Training saves small layers in chunks of several; such a parameter's
    chunks are kept until another parameter is read. So read all layers of one parameter before the next.
    """

    def __init__(self, folder: pathlib.Path, shapes: Mapping[str, tuple[int, ...]]):
        """
        Args:
          folder: the model's folder, local.
          shapes: of each parameter, by name, as model.json describes them.

        Raises:
          CheckpointError: if there is no checkpoint, or it has other parameters or is damaged.
        """
        newest = newest_checkpoint(epath.Path(folder.resolve() / "checkpoints"))
        check_whole(newest)
        self._params = pathlib.Path(newest) / "params"
        try:
            metadata = json.loads((self._params / "_METADATA").read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self._params} has no parameters: {error}") from error
        self._driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
        self._open: tuple[str, ts.TensorStore] | None = None
        self.dtypes: dict[str, np.dtype] = {}
        for name, shape in shapes.items():
            array = self._array(name)
            if array.shape != tuple(shape):
                raise CheckpointError(
                    f"{self._params}: {name} has shape {list(array.shape)}, but model.json wants {list(shape)}"
                )
            self.dtypes[name] = array.dtype.numpy_dtype

    def read(self, name: str, layer: int | None = None, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Returns a parameter or one layer of a stacked one, or the part of it that the index selects."""
        array = self._array(name)
        if layer is not None:
            array = array[layer]
        if index is not None:
            array = array[index]
        try:
            return array.read().result()
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{self._params}: {name} cannot be read, the files are damaged: {error}") from error

    def _array(self, name: str) -> ts.TensorStore:
        if self._open is None or self._open[0] != name:
            self._open = None  # frees the old one's chunks first
            spec = {"driver": self._driver, "kvstore": _place(self._params, name), "recheck_cached_data": "open"}
            try:
                array = ts.open(spec, read=True).result()
                # A parameter in chunks of several layers is kept as a whole, however large it is.
                if array.rank == 3 and array.chunk_layout.read_chunk.shape[0] > 1:
                    keep = ts.Context({"cache_pool": {"total_bytes_limit": 1 << 40}})
                    array = ts.open(spec, read=True, context=keep).result()
                self._open = name, array
            except (ValueError, OSError) as error:
                raise CheckpointError(f"{self._params}: {name} is missing or damaged: {error}") from error
        return self._open[1]


def _place(params: pathlib.Path, name: str) -> dict[str, Any]:
    # A path and not a URL, in which some characters would have to be escaped.
    return {"driver": "ocdbt", "base": {"driver": "file", "path": f"{params}/"}, "path": name.replace("/", ".") + "/"}


def _chunks(shape: tuple[int, ...], stacked: bool, itemsize: int) -> list[int]:
    """One layer, or as many rows of a large one as fit a chunk."""
    layer = shape[1:] if stacked else shape
    rows = layer[0] if len(layer) == 1 else max(1, CHUNK_BYTES // (math.prod(layer[1:]) * itemsize))
    return [1] * stacked + [min(rows, layer[0]), *layer[1:]]


def _zarr_name(dtype: np.dtype) -> str:
    return dtype.str if dtype.kind == "f" else dtype.name  # zarr names bfloat16 by its name


def _tree_metadata(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What Orbax needs to know of the tree: for each leaf its path of dictionary keys, and that it is an array."""
    key_of_dictionary = 2
    tree = {
        str(tuple(name.split("/"))): {
            "key_metadata": [{"key": key, "key_type": key_of_dictionary} for key in name.split("/")],
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
        }
        for name in shapes
    }
    return {"tree_metadata": tree, "use_ocdbt": True, "use_zarr3": False, "custom_metadata": None,
            "store_array_data_equal_to_fill_value": True}  # fmt: skip


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))
