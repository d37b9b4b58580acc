"""Writes Meta's own files: params.json and consolidated.00.pth, .01.pth, ..., one for each model-parallel rank."""

import json
import pathlib
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from llama2_jax.interop.checkpoint import BadCheckpoint, Checkpoint, cast, copy_tokenizer
from llama2_jax.interop.meta import part_shape
from llama2_jax.interop.names import NAMING, stored_pieces, transposed
from llama2_jax.interop.torch_file import TorchFileWriter
from llama2_jax.models.config import ModelConfig, ffn_hidden

# (multiple_of, ffn_dim_multiplier) of the released models, tried first.
_RELEASED = ((256, None), (4096, 1.3))


def write_meta(
    checkpoint: Checkpoint,
    target: pathlib.Path,
    dtype: np.dtype,
    shards: int = 1,
    progress: Callable[[int], Any] = lambda size: None,
) -> None:
    """Writes a language model.

    Args:
      checkpoint: the model.
      target: an existing, empty folder.
      dtype: of the weights written.
      shards: over how many files they are split, one per model-parallel process; the released models have 1 (7B), 2
        (13B) and 8 (70B).
      progress: called with the number of elements of each piece when it is written.

    Raises:
      BadCheckpoint: if it is a scalar model, which the format does not support, if the number of files does not divide
        the model's sizes, or if `checkpoint.read` does.
    """
    config = checkpoint.config
    if checkpoint.head != "language":
        raise BadCheckpoint(
            f"{checkpoint.folder} is a scalar model, which Meta's format does not support: use huggingface"
        )
    stored = list(stored_pieces(config, "language", "meta"))
    if shards < 1 or config.kv_heads % shards or config.heads % shards:
        raise BadCheckpoint(
            f"{config.heads} heads and {config.kv_heads} key and value heads cannot be split over {shards} file(s)"
        )
    shapes = {one.name: part_shape(one.piece.name, one.shape, shards, "--shards") for one in stored}
    paths = [target / f"consolidated.{number:02d}.pth" for number in range(shards)]
    with ExitStack() as stack:
        files = [TorchFileWriter(path, shapes, dtype) for path in paths]
        for file in files:
            stack.callback(file.abandon)
        for one in stored:
            array = checkpoint.read(one.piece.name, one.piece.layer)
            array = array.T if transposed(one.piece.name) else array
            axis = NAMING["language"][one.piece.name].split
            parts = [array] * shards if axis is None else np.split(array, shards, axis)
            for file, part in zip(files, parts, strict=True):
                file.write(one.name, cast(part, dtype, one.piece.label))
            del array, parts, part
            progress(one.piece.size)
        for file in files:
            file.close()
        stack.pop_all()
    if checkpoint.tokenizer_model is not None:
        copy_tokenizer(checkpoint.tokenizer_model, target)
    (target / "params.json").write_text(json.dumps(meta_params(config)) + "\n")


def meta_params(config: ModelConfig) -> dict[str, Any]:
    """Returns the content of params.json, with only the fields that Meta's code knows."""
    multiple_of, multiplier = _width_rule(config)
    params = {"dim": config.dim, "multiple_of": multiple_of, "n_heads": config.heads, "n_layers": config.layers,
              "norm_eps": config.norm_eps, "vocab_size": config.vocab_size}  # fmt: skip
    if config.kv_heads != config.heads:
        params["n_kv_heads"] = config.kv_heads
    if multiplier is not None:
        params["ffn_dim_multiplier"] = multiplier
    if config.rope_theta != 10000.0:
        params["rope_theta"] = config.rope_theta
    return params


def _width_rule(config: ModelConfig) -> tuple[int, float | None]:
    """Returns multiple_of and ffn_dim_multiplier that give the model's feed-forward width by Meta's rule."""
    powers = [1 << power for power in range(12, -1, -1)]
    for rule in (*_RELEASED, *((multiple, None) for multiple in powers)):
        if ffn_hidden(config.dim, *rule) == config.ffn_hidden:
            return rule
    # Any other width: half a unit more, since Meta's rule rounds down before it rounds up.
    multiple = next(multiple for multiple in powers if config.ffn_hidden % multiple == 0)
    return multiple, (config.ffn_hidden + 0.5) / int(2 * (4 * config.dim) / 3)
