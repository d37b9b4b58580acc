"""A tensor inside a file: where its bytes are, and how to read them without the rest of the file."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping

import numpy as np

from llama2_jax.interop.checkpoint import BadCheckpoint


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file.

    Attributes:
      path: the file.
      name: the tensor's name in it.
      dtype: of its elements.
      shape: of the tensor as stored.
      offset: of its first element, in bytes from the file's start.
      strides: steps between elements along each dimension, in elements; None: contiguous, row-major.
    """

    path: pathlib.Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None

    @property
    def span(self) -> int:
        """Number of bytes of the file that it spans."""
        if self.strides is None:
            return math.prod(self.shape) * self.dtype.itemsize
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return (last + 1) * self.dtype.itemsize

    def view(self) -> np.ndarray:
        """Returns the tensor as a read-only view of the file.

        Every call maps the file again: its pages are freed with the view, while those of a file that stays mapped would
        count as resident until the end.
        """
        mapped = np.asarray(np.memmap(self.path, np.uint8, mode="r", offset=self.offset, shape=(self.span,)))
        elements = mapped.view(self.dtype)
        if self.strides is None:
            return elements.reshape(self.shape)
        steps = [stride * self.dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(elements, self.shape, steps, writeable=False)


def check_file(path: pathlib.Path) -> None:
    """Raises BadCheckpoint if a path is not that of a file, saying where a broken link leads."""
    if path.is_file():
        return
    if path.is_symlink():
        raise BadCheckpoint(f"{path} is a link to {path.readlink()}, which is no file: download it again")
    raise BadCheckpoint(f"{path} is {'a folder' if path.is_dir() else 'missing'}, expected a file of weights")


def are_sizes(*numbers: object) -> bool:
    """Whether these are whole numbers of at least 0."""
    return all(type(number) is int and number >= 0 for number in numbers)


def check_inside(tensor: StoredTensor, end: int) -> StoredTensor:
    """Returns the tensor itself.

    Raises:
      BadCheckpoint: if its bytes reach beyond `end`, the end of the file or of its section of the file.
    """
    if tensor.offset + tensor.span > end:
        raise BadCheckpoint(
            f"{tensor.path}: tensor {tensor.name!r} extends to byte {tensor.offset + tensor.span}, beyond {end}: "
            "the file was cut off; download it again"
        )
    return tensor


def check_stored(tensor: StoredTensor, shape: tuple[int, ...], dtypes: dict[str, np.dtype]) -> None:
    """Raises BadCheckpoint if a tensor has another shape than in the model's description, or an unsupported dtype."""
    if tensor.shape != shape:
        raise BadCheckpoint(
            f"{tensor.path}: tensor {tensor.name!r} has shape {list(tensor.shape)}, expected {list(shape)} by the "
            "sizes in the model's description"
        )
    if tensor.dtype not in dtypes.values():
        raise BadCheckpoint(
            f"{tensor.path}: tensor {tensor.name!r} is {tensor.dtype}, expected one of {', '.join(dtypes)}: convert "
            "quantised and other weights to one of these first"
        )


class Promised:
    """The tensors in a file's header that are not yet written."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype):
        self._shapes, self._dtype = dict(shapes), dtype

    def keep(self, name: str, array: np.ndarray) -> np.ndarray:
        """Marks a tensor as written, once, and returns its bytes in row-major order.

        Raises:
          ValueError: if its shape or dtype is not the promised one.
        """
        shape = self._shapes[name]
        if (array.shape, array.dtype) != (shape, self._dtype):
            raise ValueError(f"{name}: {array.dtype}{array.shape} was promised as {self._dtype}{shape}")
        del self._shapes[name]
        return array.reshape(-1).view(np.uint8)

    def check_kept(self) -> None:
        """Raises ValueError if tensors are not yet written, naming them."""
        if self._shapes:
            raise ValueError(f"not written: {', '.join(self._shapes)}")
