"""Turns a multi-head checkpoint into one with fewer key and value heads, to be trained a little further.

Ainslie et al. 2023, "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints",
section 2.1.
"""

import dataclasses
import zlib

import numpy as np

from llama2_jax.interop.checkpoint import BadCheckpoint, Checkpoint, Index
from llama2_jax.models.llama import INIT_STD

# From best to worst in the paper's comparison (section 3.3).
POOLINGS = ("mean", "first", "random")


def with_kv_heads(checkpoint: Checkpoint, kv_heads: int, pooling: str = "mean", seed: int = 0) -> Checkpoint:
    """Returns the same checkpoint with fewer key and value heads, each made from those of its group as it is read.

    Args:
      checkpoint: the original model.
      kv_heads: the new number of key and value heads.
      pooling: `mean` of the group's projections, its `first` one, or `random`, a new initialisation.
      seed: of the new initialisation.

    Raises:
      BadCheckpoint: if the heads cannot be grouped evenly.
    """
    config = checkpoint.config
    if pooling not in POOLINGS:
        raise BadCheckpoint(f"kv_pooling is {pooling!r}; it must be one of: {', '.join(POOLINGS)}")
    if not 0 < kv_heads <= config.kv_heads or config.kv_heads % kv_heads:
        raise BadCheckpoint(
            f"{checkpoint.folder}: {config.kv_heads} key and value heads cannot become {kv_heads}: choose a divisor"
        )

    def read(name: str, layer: int | None = None, index: Index | None = None) -> np.ndarray:
        if name not in ("trunk/layers/key", "trunk/layers/value"):
            return checkpoint.read(name, layer, index)
        if pooling == "random":
            stream = np.random.default_rng((seed, zlib.crc32(name.encode()), layer))
            pooled = stream.normal(0, INIT_STD, (config.dim, kv_heads * config.head_dim)).astype(checkpoint.dtype)
        else:
            pooled = _pool(checkpoint.read(name, layer), kv_heads, config.head_dim, pooling)
        return pooled if index is None else pooled[index]

    config = dataclasses.replace(config, kv_heads=kv_heads)
    return dataclasses.replace(checkpoint, config=config, read=read, adapters=None)


def _pool(matrix: np.ndarray, kv_heads: int, head_dim: int, pooling: str) -> np.ndarray:
    groups = matrix.reshape(matrix.shape[0], kv_heads, -1, head_dim)
    pooled = groups[:, :, 0] if pooling == "first" else groups.mean(axis=2, dtype=np.float32).astype(matrix.dtype)
    return pooled.reshape(matrix.shape[0], kv_heads * head_dim)
