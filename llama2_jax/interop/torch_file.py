"""Files in torch.save's format: a zip whose data.pkl says how tensors are cut from the storages in the same zip.

They are read and written without torch. A pickle can run any code when it is loaded, so it is read by an unpickler that
knows only the names that a file of tensors needs and refuses all others, as torch's weights-only loading. Only the
requested tensors are loaded, and a file is written without having all its tensors in memory.
"""

import collections
import io
import os
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from llama2_jax.interop.checkpoint import BadCheckpoint
from llama2_jax.interop.stored_tensor import Promised, StoredTensor, are_sizes, check_file, check_inside

_STORAGES = {
    "FloatStorage": np.float32, "HalfStorage": np.float16, "BFloat16Storage": ml_dtypes.bfloat16,
    "DoubleStorage": np.float64, "LongStorage": np.int64, "IntStorage": np.int32, "ShortStorage": np.int16,
    "CharStorage": np.int8, "ByteStorage": np.uint8, "BoolStorage": np.bool_,
}  # fmt: skip
_WRITTEN = {np.dtype(dtype): name for name, dtype in _STORAGES.items()}
# torch aligns storages so that they can be mapped.
_ALIGNMENT = 64
_LOCAL_HEADER, _ZIP64_EXTRA = 30, 20


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype


class _Cut(NamedTuple):
    """A tensor as described in a pickle: a part of a storage, and marks such as {'neg': True}, if it has any."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    marks: object


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: Sequence[int], strides: Sequence[int],
    requires_grad: object = False, hooks: object = None, marks: object = None,
) -> _Cut:  # fmt: skip
    return _Cut(storage, offset, tuple(shape), tuple(strides), marks)


def _rebuild_parameter(cut: _Cut, *_: Any) -> _Cut:
    return cut


_KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _WeightsOnly(pickle.Unpickler):
    """An unpickler that makes dictionaries, numbers, strings and descriptions of tensors, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        raise BadCheckpoint(f"the pickle loads {module}.{name}, which weights do not need and which may be harmful")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise BadCheckpoint(f"the pickle loads a {kind!r} of {dtype!r}, expected a storage")
        return _Storage(str(key), dtype)


def read_torch_file(path: pathlib.Path) -> dict[str, StoredTensor]:
    """Returns the tensors, by name, of a file that contains a dictionary of them.

    Raises:
      BadCheckpoint: if the file is absent, cut off, of another kind, or contains more than tensors.
    """
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            root = _root(archive, path)
            _check_byte_order(archive, root, path)
            content = _WeightsOnly(io.BytesIO(archive.read(f"{root}/data.pkl"))).load()
            if not isinstance(content, dict) or not all(isinstance(cut, _Cut) for cut in content.values()):
                raise BadCheckpoint("it is not a dictionary of nothing but tensors")
            if unnamed := [name for name in content if not isinstance(name, str)]:
                raise BadCheckpoint(f"it has a tensor under {unnamed[0]!r}, expected names only")
            places = {name: _place(archive, file, f"{root}/data/{cut.storage.key}") for name, cut in content.items()}
            return {name: _tensor(path, name, cut, *places[name]) for name, cut in content.items()}
    except zipfile.BadZipFile as error:
        raise BadCheckpoint(
            f"{path} is cut off, or was written by a torch older than 1.6; download it again, or load it with torch "
            "and save it again"
        ) from error
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{path} is refused: {error}") from error
    except (pickle.UnpicklingError, KeyError, TypeError, ValueError, IndexError, AttributeError, EOFError) as error:
        raise BadCheckpoint(f"{path} is not a file of tensors: {error!r}") from error


def _root(archive: zipfile.ZipFile, path: pathlib.Path) -> str:
    roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise BadCheckpoint(f"{path.name} is a zip without one data.pkl: not a file of torch.save")
    return roots[0]


def _check_byte_order(archive: zipfile.ZipFile, root: str, path: pathlib.Path) -> None:
    name = f"{root}/byteorder"
    if name in archive.namelist() and archive.read(name) != b"little":
        raise BadCheckpoint(f"{path.name} was written on a big-endian machine; save it again on another")


def _place(archive: zipfile.ZipFile, file: io.BufferedIOBase, name: str) -> tuple[int, int]:
    """Returns where in the file a record's bytes begin and end."""
    record = archive.getinfo(name)
    if record.compress_type != zipfile.ZIP_STORED:
        raise BadCheckpoint(f"its record {name} is compressed, which torch.save never does")
    file.seek(record.header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", file.read(4))
    begin = record.header_offset + _LOCAL_HEADER + name_length + extra_length
    return begin, begin + record.file_size


def _tensor(path: pathlib.Path, name: str, cut: _Cut, begin: int, end: int) -> StoredTensor:
    if not are_sizes(cut.offset, *cut.shape, *cut.strides) or len(cut.shape) != len(cut.strides):
        raise BadCheckpoint(f"tensor {name!r} has the shape {cut.shape} and the strides {cut.strides}")
    if cut.marks:
        raise BadCheckpoint(
            f"tensor {name!r} is stored with the marks {cut.marks!r}, by which its values are others than those in the "
            "file (negative or conjugate ones, say): save its clone(), or resolve_neg()"
        )
    offset = begin + cut.offset * cut.storage.dtype.itemsize
    strides = None if cut.strides == _row_strides(cut.shape) else cut.strides
    return check_inside(StoredTensor(path, name, cut.storage.dtype, cut.shape, offset, strides), end)


def _row_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape)))


class TorchFileWriter:
    """Writes a file in torch.save's format, its tensors one at a time, in any order."""

    def __init__(self, path: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype):
        """
        Args:
          path: must not exist.
          shapes: of each tensor, by name, in the dictionary's order.
          dtype: of all of them.
        """
        self._file = path.open("xb")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)
        self._root, self._promised = path.stem, Promised(shapes, dtype)
        self._keys = {name: str(number) for number, name in enumerate(shapes)}
        self._record("data.pkl", np.frombuffer(_pickle(shapes, self._keys, dtype), np.uint8))
        self._record("byteorder", np.frombuffer(b"little", np.uint8))

    def write(self, name: str, array: np.ndarray) -> None:
        """Writes a tensor, which must be contiguous and of the promised shape and dtype."""
        self._record(f"data/{self._keys[name]}", self._promised.keep(name, array))

    def close(self) -> None:
        """Checks that all tensors are written, and closes the file."""
        self._promised.check_kept()
        self._record("version", np.frombuffer(b"3\n", np.uint8))
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Closes an unfinished file, which will be removed."""
        self._zip.fp = None  # else closing it would write a directory of its records
        self._file.close()

    def _record(self, name: str, content: np.ndarray) -> None:
        info = zipfile.ZipInfo(f"{self._root}/{name}")
        begin = self._file.tell() + _LOCAL_HEADER + len(info.filename) + _ZIP64_EXTRA + 4
        padding = -begin % _ALIGNMENT
        info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding  # torch's own mark
        with self._zip.open(info, "w", force_zip64=True) as record:
            record.write(content)


def _pickle(shapes: Mapping[str, tuple[int, ...]], keys: Mapping[str, str], dtype: np.dtype) -> bytes:
    """Returns the pickle of a dictionary of tensors, as torch writes it; made by hand, since its names are torch's."""
    items = b"".join(_text(name) + _tensor_pickle(shape, keys[name], dtype) for name, shape in shapes.items())
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP


def _tensor_pickle(shape: tuple[int, ...], key: str, dtype: np.dtype) -> bytes:
    count = int(np.prod(shape, dtype=np.int64))
    storage = _tuple(
        _text("storage"), _name("torch", _WRITTEN[dtype]), _text(key), _text("cpu"), _number(count)
    ) + pickle.BINPERSID  # fmt: skip
    no_hooks = _name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = _tuple(
        storage, _number(0), _tuple(*map(_number, shape)), _tuple(*map(_number, _row_strides(shape))),
        pickle.NEWFALSE, no_hooks,
    )  # fmt: skip
    return _name("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def _tuple(*parts: bytes) -> bytes:
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def _text(text: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(text.encode())) + text.encode()


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _number(number: int) -> bytes:
    """A non-negative integer."""
    size = number.bit_length() // 8 + 1
    return pickle.LONG1 + bytes([size]) + number.to_bytes(size, "little")
