"""Files in the safetensors format: eight bytes with the header's length, the header as JSON, then the tensors' bytes.

Tensors are written one at a time in any order; the format's own library needs all of them in memory.
"""

import json
import math
import os
import pathlib
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from llama2_jax.interop.checkpoint import BadCheckpoint
from llama2_jax.interop.stored_tensor import Promised, StoredTensor, are_sizes, check_file, check_inside

_NAMES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}  # fmt: skip
_DTYPES = {name: np.dtype(dtype) for name, dtype in _NAMES.items()}
_WRITTEN = {dtype: name for name, dtype in _DTYPES.items()}
# The limit of the format's own library.
_LONGEST_HEADER = 100_000_000


def read_safetensors(path: pathlib.Path) -> dict[str, StoredTensor]:
    """Returns the tensors of a file by name.

    Raises:
      BadCheckpoint: if the file is absent, cut off or not a safetensors file.
    """
    check_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(_LONGEST_HEADER, size - 8):
            raise BadCheckpoint(f"{path} ({size} bytes) is cut off or not a safetensors file; download it again")
        header = file.read(length)
    try:
        entries = json.loads(header, object_pairs_hook=_without_repeats)
        entries.pop("__metadata__", None)
        tensors = {name: _entry(path, name, entry, 8 + length, size) for name, entry in entries.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, BadCheckpoint):
            raise
        raise BadCheckpoint(f"{path} is not a safetensors file: its header cannot be read ({error!r})") from error
    _check_order(path, tensors.values(), 8 + length, size)
    return tensors


def _without_repeats(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is there twice")
        found[name] = value
    return found


def _check_order(path: pathlib.Path, tensors: Iterable[StoredTensor], start: int, size: int) -> None:
    """Raises unless each tensor begins where the one before it ends, and the last one ends the file: the format's rule,
    which finds tensors that overlap and files put together wrongly."""
    end = start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.span)):
        if tensor.offset != end:
            raise BadCheckpoint(
                f"{path}: tensor {tensor.name!r} begins at byte {tensor.offset}, expected {end}, where the one before "
                "it ends: the file is damaged"
            )
        end += tensor.span
    if end != size:
        raise BadCheckpoint(f"{path} has {size - end} bytes behind its last tensor, expected none: the file is damaged")


def _entry(path: pathlib.Path, name: str, entry: dict, start: int, size: int) -> StoredTensor:
    if entry["dtype"] not in _DTYPES:
        raise BadCheckpoint(f"{path}: tensor {name!r} has the unknown dtype {entry['dtype']}")
    begin, end = entry["data_offsets"]
    if not are_sizes(*entry["shape"], begin, end):
        raise BadCheckpoint(
            f"{path}: tensor {name!r} has the shape {entry['shape']} and the data_offsets {entry['data_offsets']}, "
            "expected whole numbers of at least 0"
        )
    tensor = StoredTensor(path, name, _DTYPES[entry["dtype"]], tuple(entry["shape"]), start + begin)
    if end - begin != tensor.span:
        raise BadCheckpoint(
            f"{path}: tensor {name!r} of {entry['dtype']}{entry['shape']} has {end - begin} bytes, expected "
            f"{tensor.span}"
        )
    return check_inside(tensor, size)


class SafetensorsWriter:
    """A safetensors file whose tensors are written one at a time, in any order."""

    def __init__(self, path: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype):
        """
        Args:
          path: must not exist.
          shapes: of each tensor, by name, in the file's order.
          dtype: of all of them.
        """
        entries, end = {"__metadata__": {"format": "pt"}}, 0  # transformers refuses files without it
        for name, shape in shapes.items():
            begin, end = end, end + math.prod(shape) * dtype.itemsize
            entries[name] = {"dtype": _WRITTEN[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        self._start = 8 + len(header)
        self._file = path.open("xb")
        self._file.write(struct.pack("<Q", len(header)) + header)
        self._file.truncate(self._start + end)
        self._offsets = {name: self._start + entries[name]["data_offsets"][0] for name in shapes}
        self._promised = Promised(shapes, dtype)

    def write(self, name: str, array: np.ndarray) -> None:
        """Writes a tensor, which must be contiguous and of the promised shape and dtype."""
        content = self._promised.keep(name, array)
        self._file.seek(self._offsets[name])
        self._file.write(content)

    def close(self) -> None:
        """Checks that all tensors are written, and closes the file."""
        self._promised.check_kept()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Closes an unfinished file, which will be removed."""
        self._file.close()
