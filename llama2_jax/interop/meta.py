"""Reads Meta's own files: params.json and consolidated.00.pth, .01.pth, ..., one for each model-parallel rank."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from llama2_jax.interop.checkpoint import (
    DTYPES,
    BadCheckpoint,
    Checkpoint,
    Index,
    check_tokenizer,
    compute_dtype,
    local_folder,
    read_json_object,
    widest,
)
from llama2_jax.interop.names import NAMING, stored_pieces, transposed
from llama2_jax.interop.stored_tensor import StoredTensor, check_stored
from llama2_jax.interop.torch_file import read_torch_file
from llama2_jax.models.config import ModelConfig, ffn_hidden

# The released params.json do not give the maximum length; Llama 2 was trained with this one.
LENGTH = 4096
_FIELDS = {"dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier", "norm_eps",
           "rope_theta", "max_seq_len", "max_batch_size"}  # fmt: skip
# The rotary frequencies, which the first release saved; they follow from params.json.
_IGNORED = {"rope.freqs"}
# A few rows of these matrices, whose parts are different rows and columns, distinguish two files of weights.
_TELLING, _ROWS = ("tok_embeddings.weight", "layers.0.attention.wq.weight", "output.weight"), 16

Shards = Sequence[dict[str, StoredTensor]]


def open_meta(path: str | pathlib.Path, max_length: int = LENGTH) -> Checkpoint:
    """Opens a folder; checks names, shapes and dtypes of all tensors, reading no values but a few rows.

    Args:
      path: a local folder with params.json and consolidated.*.pth; tokenizer.model there or in its parent folder, where
        Meta's download puts it.
      max_length: the longest sequence in tokens; params.json's max_seq_len, if it has one.

    Raises:
      BadCheckpoint: if a file is missing, cut off or a copy of another, a tensor is missing, unknown or of another
        shape, the weights do not have the sizes in params.json, or tokenizer.model does not fit.
    """
    folder = local_folder(path)
    shards = _shards(folder)
    tokenizer_model = next((f / "tokenizer.model" for f in (folder, folder.parent)
                            if (f / "tokenizer.model").exists()), None)  # fmt: skip
    config = _config(folder / "params.json", shards, max_length)
    _check_tensors(folder, shards, config)
    _check_different(shards)
    if tokenizer_model is not None:
        check_tokenizer(tokenizer_model, config.vocab_size)
    dtype = widest(tensor.dtype for shard in shards for name, tensor in shard.items() if name not in _IGNORED)
    return Checkpoint(
        kind="meta",
        folder=folder,
        config=dataclasses.replace(config, compute_dtype=compute_dtype(dtype)),
        head="language",
        dtype=dtype,
        tokenizer_model=tokenizer_model,
        read=_reader(shards),
    )


def _reader(shards: Shards):
    def read(name: str, layer: int | None = None, index: Index | None = None) -> np.ndarray:
        naming = NAMING["language"][name]
        parts = [shard[naming.meta.format(layer)] for shard in shards]
        if naming.split is None:
            return _same_in_all(parts)[index or (slice(None),)]
        dimensions = len(parts[0].shape)
        index = (slice(None),) * dimensions if index is None else index
        array = _joined(parts, naming.split, index[::-1] if transposed(name) else index)
        return array.T if transposed(name) else array

    return read


def _joined(parts: Sequence[StoredTensor], axis: int, index: Index) -> np.ndarray:
    """Returns the part that the index selects of a tensor that is split over files along an axis."""
    width = parts[0].shape[axis]
    begin, end, _ = index[axis].indices(width * len(parts))
    taken = []
    for number, part in enumerate(parts):
        first, last = max(begin - number * width, 0), min(end - number * width, width)
        if first < last:
            own = tuple(slice(first, last) if here == axis else one for here, one in enumerate(index))
            taken.append(part.view()[own])
    return taken[0] if len(taken) == 1 else np.concatenate(taken, axis=axis)


def _same_in_all(parts: Sequence[StoredTensor]) -> np.ndarray:
    first = parts[0].view()
    for part in parts[1:]:
        if not np.array_equal(part.view().view(np.uint8), first.view(np.uint8)):
            raise BadCheckpoint(
                f"{part.path}: {part.name!r} differs from that in {parts[0].path.name}: files of two models"
            )
    return first


def _shards(folder: pathlib.Path) -> Shards:
    found = sorted(path.name for path in folder.glob("consolidated.*.pth"))
    wanted = [f"consolidated.{number:02d}.pth" for number in range(len(found))]
    if not found or found != wanted:
        raise BadCheckpoint(
            f"{folder} has the weight files {found or 'none'}; expected consolidated.00.pth and so on, without gaps"
        )
    return [read_torch_file(folder / name) for name in found]


def _config(path: pathlib.Path, shards: Shards, max_length: int) -> ModelConfig:
    params = _read_params(path)
    embedding, gate = (_shape(shards[0], name) for name in ("tok_embeddings.weight", "layers.0.feed_forward.w1.weight"))
    vocab_size, max_length = params.get("vocab_size", -1), _max_length(params, max_length, path)
    try:
        config = ModelConfig(
            # -1 in Meta's own files: as the tokenizer.
            vocab_size=embedding[0] if vocab_size == -1 else vocab_size,
            dim=params["dim"],
            layers=params["n_layers"],
            heads=params["n_heads"],
            kv_heads=params["n_heads"] if params.get("n_kv_heads") is None else params["n_kv_heads"],
            ffn_hidden=ffn_hidden(params["dim"], params.get("multiple_of", 256), params.get("ffn_dim_multiplier")),
            max_length=max_length,
            norm_eps=params.get("norm_eps", 1e-5),
            rope_theta=params.get("rope_theta", 10000.0),
        )
    except KeyError as error:
        raise BadCheckpoint(f"{path}: the field {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise BadCheckpoint(f"{path}: {error}") from error
    for what, said, found in (
        ("vocab_size", config.vocab_size, embedding[0]),
        ("dim", config.dim, embedding[1] * len(shards)),
        ("multiple_of and ffn_dim_multiplier, hence the feed-forward's width,", config.ffn_hidden,
         gate[0] * len(shards)),
    ):  # fmt: skip
        if said != found:
            raise BadCheckpoint(
                f"{path} does not fit the weights: its {what} is {said}, in {len(shards)} file(s) of weights {found}"
            )
    return config


def _max_length(params: dict[str, Any], wanted: int, path: pathlib.Path) -> int:
    own = params.get("max_seq_len")
    if own is not None and wanted not in (own, LENGTH):
        raise BadCheckpoint(
            f"{path}: max_seq_len is {own!r}, but {wanted} is asked for (--max_length): give one of them"
        )
    return wanted if own is None else own


def _read_params(path: pathlib.Path) -> dict[str, Any]:
    params = read_json_object(path)
    if unknown := sorted(name for name in params.keys() - _FIELDS if params[name]):
        raise BadCheckpoint(f"{path} has fields that Llama 2 does not have: {', '.join(unknown)}: another architecture")
    return params


def _shape(shard: dict[str, StoredTensor], name: str) -> tuple[int, ...]:
    if name not in shard:
        raise BadCheckpoint(f"{next(iter(shard.values())).path if shard else 'the file'}: tensor {name!r} is missing")
    if len(shard[name].shape) != 2:
        raise BadCheckpoint(
            f"{shard[name].path}: tensor {name!r} has shape {list(shard[name].shape)}, expected a matrix"
        )
    return shard[name].shape


def _check_tensors(folder: pathlib.Path, shards: Shards, config: ModelConfig) -> None:
    wanted = list(stored_pieces(config, "language", "meta"))
    names = {stored.name for stored in wanted} | _IGNORED
    for number, shard in enumerate(shards):
        path = folder / f"consolidated.{number:02d}.pth"
        for stored in wanted:
            if stored.name not in shard:
                raise BadCheckpoint(f"{path}: tensor {stored.name!r} is missing")
            check_stored(shard[stored.name], part_shape(stored.piece.name, stored.shape, len(shards), path), DTYPES)
        if unknown := sorted(shard.keys() - names):
            raise BadCheckpoint(
                f"{path}: tensors that Llama 2 does not have, or more layers than in params.json: "
                f"{', '.join(unknown[:5])} (of {len(unknown)})"
            )


def _check_different(shards: Shards) -> None:
    """Raises if two files have the same weights: one was copied over the other."""
    found: dict[bytes, str] = {}
    for shard in shards:
        start = b"".join(shard[name].view()[:_ROWS].tobytes() for name in _TELLING)
        path = shard[_TELLING[0]].path
        if start in found and any(start):
            raise BadCheckpoint(f"{path} has the same weights as {found[start]}: download both again")
        found[start] = path.name


def part_shape(name: str, shape: tuple[int, ...], shards: int, where: object) -> tuple[int, ...]:
    """Returns the shape of a tensor's part in each of `shards` files.

    Raises:
      BadCheckpoint: if it cannot be split evenly.
    """
    axis = NAMING["language"][name].split
    if axis is None:
        return shape
    if shape[axis] % shards:
        raise BadCheckpoint(f"{where}: {name} of stored shape {list(shape)} cannot be split over {shards} files")
    return tuple(size // shards if here == axis else size for here, size in enumerate(shape))
