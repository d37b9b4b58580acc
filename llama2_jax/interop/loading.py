"""Loads the parameters of an opened checkpoint onto devices, each shard read directly for its own device."""

import functools

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding

from llama2_jax.interop.checkpoint import STACKED, Checkpoint, Index, parameter_shapes
from llama2_jax.models.heads import build_model
from llama2_jax.models.llama import Params, parameter_shardings
from llama2_jax.models.quantized import Quantization, quantize


def load_params(
    checkpoint: Checkpoint,
    mesh: Mesh | None = None,
    dtype: np.dtype | type = np.float32,
    quantized: Quantization | None = None,
) -> Params:
    """Loads the parameters of a checkpoint.

    The host keeps no more than one shard of one parameter and one tensor of the files in memory at a time.

    Args:
      checkpoint: from `open_huggingface` or `open_meta`.
      mesh: the devices to shard them over, by the rules of sharding/axes.py; by default all are on the first one.
      dtype: of the arrays; training and the objectives need float32, 16 bits halve a chat's memory.
      quantized: how the layers' matrices are stored, one after the other; None leaves them as arrays.

    Raises:
      BadCheckpoint: if the files turn out to be broken when they are read.
    """
    shardings = {}
    if mesh is not None:
        leaves, _ = jax.tree_util.tree_flatten_with_path(
            parameter_shardings(build_model(checkpoint.config, checkpoint.head), mesh),
            is_leaf=lambda leaf: isinstance(leaf, NamedSharding),
        )
        shardings = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    alone = SingleDeviceSharding(jax.local_devices()[0])
    params: Params = {}
    for name, shape in parameter_shapes(checkpoint.config, checkpoint.head).items():
        *rooms, last = name.split("/")
        inner = functools.reduce(lambda tree, room: tree.setdefault(room, {}), rooms, params)
        shard = functools.partial(_shard, checkpoint, name, shape, np.dtype(dtype))
        array = jax.make_array_from_callback(shape, shardings.get(name, alone), shard, dtype=dtype)
        is_matrix = name.startswith(STACKED) and len(shape) == 3
        inner[last] = quantize(array, quantized) if quantized and is_matrix else array
    return params


def _shard(checkpoint: Checkpoint, name: str, shape: tuple[int, ...], dtype: np.dtype, index: Index) -> np.ndarray:
    """Reads the part of a parameter that the index selects, a layer at a time if it is stacked."""
    out = np.empty([len(range(*one.indices(size))) for one, size in zip(index, shape, strict=True)], dtype)
    if name.startswith(STACKED):
        for place, layer in enumerate(range(*index[0].indices(shape[0]))):
            out[place] = checkpoint.read(name, layer, index[1:])
    else:
        out[...] = checkpoint.read(name, None, index)
    return out
