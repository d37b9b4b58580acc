"""Adapters in files: their description and their factors, and a base read with them as one checkpoint.

Factors have the layout of models/adapters.py, a layer at a time: `read("query", "a", layer)` is [inputs, rank].
"""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from llama2_jax.interop.checkpoint import STACKED, Checkpoint, Index
from llama2_jax.models.adapters import TARGETS, AdapterConfig, abstract_trained
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.quantized import plain, quantization, quantize

HEAD = "head/kernel"


@dataclasses.dataclass(frozen=True)
class StoredAdapters:
    """Adapters on disk.

    Attributes:
      config: which matrices have one, and of what size.
      base: where the model that they belong to is: a folder, or an address on the Hugging Face hub.
      dtype: of the factors as stored.
      read: (target, "a" or "b", layer) -> the factor.
      head: () -> the scalar model's head [dim, 1]; None for a language model, whose head is the base's.
    """

    config: AdapterConfig
    base: str
    dtype: np.dtype
    read: Callable[[str, str, int], np.ndarray]
    head: Callable[[], np.ndarray] | None = None


def trained_shapes(config: ModelConfig, head: str, adapters: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array that is trained, with the layer axis of stacked ones, by name."""
    leaves = jax.tree.leaves_with_path(abstract_trained(config, head, adapters))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}


def with_adapters(
    base: Checkpoint, adapters: StoredAdapters, kind: str, folder: pathlib.Path, tokenizer_model: pathlib.Path | None
) -> Checkpoint:
    """Returns the base with its adapters added, read a piece at a time: W + (alpha / rank) A B, summed in float32.

    W is as few bits left it if the adapters were trained beside such matrices.

    Args:
      base: the opened base.
      adapters: of this base.
      kind, folder, tokenizer_model: of the checkpoint returned.
    """

    def read(name: str, layer: int | None = None, index: Index | None = None) -> np.ndarray:
        if name == HEAD and adapters.head is not None:
            head = adapters.head()
            return head if index is None else head[index]
        target, how = name.removeprefix(STACKED), quantization(adapters.config.quantize)
        if not name.startswith(STACKED) or target not in TARGETS:
            return base.read(name, layer, index)
        inputs, outputs = (slice(None), slice(None)) if index is None else index
        if how is None:
            piece = base.read(name, layer, index)
        else:  # a group of inputs shares a scale
            piece = np.asarray(plain(quantize(base.read(name, layer), how)))[inputs, outputs]
        if target not in adapters.config.targets:
            return piece
        a, b = (adapters.read(target, factor, layer).astype(np.float32) for factor in ("a", "b"))
        return piece.astype(np.float32) + np.float32(adapters.config.scale) * (a[inputs] @ b[:, outputs])

    return dataclasses.replace(
        base,
        kind=kind,
        folder=folder,
        head="language" if adapters.head is None else "scalar",
        tokenizer_model=tokenizer_model,
        read=read,
        adapters=adapters,
    )
