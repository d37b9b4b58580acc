"""Convert a model: python -m llama2_jax.convert --source=<folder> --target=<folder> --to={orbax,huggingface,meta,peft}

The source's format is recognised; adapters are read as the model that they make of their base. Tensors pass through
memory one at a time, and the target gets its name when it is complete.
"""

import dataclasses
import errno
import math
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags, logging
from tqdm import tqdm

from llama2_jax.interop.adapters import trained_shapes
from llama2_jax.interop.checkpoint import (
    DTYPES,
    STACKED,
    BadCheckpoint,
    Checkpoint,
    cast,
    check_tokenizer,
    copy_tokenizer,
    local_folder,
    parameter_shapes,
    pieces,
    refuse_nan,
)
from llama2_jax.interop.grouped_queries import POOLINGS, with_kv_heads
from llama2_jax.interop.huggingface_export import FILE_BYTES, write_huggingface
from llama2_jax.interop.meta import LENGTH
from llama2_jax.interop.meta_export import write_meta
from llama2_jax.interop.peft import write_peft
from llama2_jax.interop.recognise import KINDS
from llama2_jax.loading import open_checkpoint
from llama2_jax.paths import expand_home
from llama2_jax.sharding.machine import hide_absent_platforms
from llama2_jax.training.model_folder import save_model_description
from llama2_jax.training.stored_params import ParamsWriter

_SOURCE = flags.DEFINE_string(
    "source", None, "The model: a folder in this project's, Hugging Face's or Meta's format; or hf://<org>/<name>."
)
_TARGET = flags.DEFINE_string("target", None, "The folder to write; must not exist.")
_TO = flags.DEFINE_enum("to", None, list(KINDS), "The format to write; orbax is this project's own.")
_DTYPE = flags.DEFINE_enum("dtype", None, list(DTYPES), "The dtype of the weights written; by default the source's.")
_SHARDS = flags.DEFINE_integer("shards", 1, "Over how many files Meta's format is split (13B: 2, 70B: 8).")
_FILE_BYTES = flags.DEFINE_integer("file_bytes", FILE_BYTES, "The largest size of a file in Hugging Face's format.")
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "A tokenizer.model for the target; by default the source's.")
_MAX_LENGTH = flags.DEFINE_integer("max_length", LENGTH, "The longest sequence; Meta's format does not store it.")
_KV_HEADS = flags.DEFINE_integer("kv_heads", None, "Key and value heads of the target; by default the source's.")
_KV_POOLING = flags.DEFINE_enum("kv_pooling", "mean", list(POOLINGS), "How heads become fewer: mean is best.")
_BASE = flags.DEFINE_string("base", "", "What adapters in PEFT's format belong to, the source's or the target's.")
_ALLOW_NAN = flags.DEFINE_boolean("allow_nan", False, "Convert a model with NaN or infinite values.")

Progress = Callable[[int], Any]


def write_model_folder(
    checkpoint: Checkpoint, target: pathlib.Path, dtype: np.dtype, progress: Progress = lambda size: None
) -> None:
    """Writes this project's format: checkpoints/, tokenizer.model and, last, model.json.

    Args:
      checkpoint: the model.
      target: an existing, empty folder.
      dtype: of the weights on disk; they are restored as float32.
      progress: called with the number of elements of each piece when it is written.
    """
    config, head = checkpoint.config, checkpoint.head
    writer = ParamsWriter(target, parameter_shapes(config, head), STACKED, dtype)
    for piece in pieces(config, head):
        writer.write(
            piece.name, piece.layer, cast(checkpoint.read(piece.name, piece.layer), dtype, piece.label)
        )  # fmt: skip
        progress(piece.size)
    writer.close()
    if checkpoint.tokenizer_model is not None:
        copy_tokenizer(checkpoint.tokenizer_model, target)
    save_model_description(target, config, head)


WRITERS = {"orbax": write_model_folder, "huggingface": write_huggingface, "meta": write_meta, "peft": write_peft}


def convert(
    checkpoint: Checkpoint, target: str | pathlib.Path, to: str, dtype: str | None = None, **options: Any
) -> None:
    """Writes a checkpoint in another format, whole or not at all.

    Args:
      checkpoint: from `open_checkpoint`.
      target: the folder to write; must not exist. It is written under a temporary name and renamed when it is complete.
      to: `orbax`, `huggingface`, `meta` or, of a model that was trained with adapters, `peft`.
      dtype: `float32`, `float16` or `bfloat16`; by default the checkpoint's.
      options: of the format: `shards` for meta, `file_bytes` for huggingface, `base` for peft.

    Raises:
      ValueError: if the target exists, or if the checkpoint is broken or does not fit the format.
      OSError: if the disk is too small; the message says how much is needed.
    """
    target = local_folder(target)
    if target.exists():
        raise BadCheckpoint(f"{target} exists; choose another target, or move it away")
    adapters = checkpoint.adapters if to == "peft" else None
    stored = DTYPES[dtype] if dtype else (adapters or checkpoint).dtype
    if adapters:
        shapes = trained_shapes(checkpoint.config, checkpoint.head, adapters.config)
        size = sum(math.prod(shape) for shape in shapes.values())
    else:
        size = sum(piece.size for piece in pieces(checkpoint.config, checkpoint.head))
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_space(target.parent, size * stored.itemsize)
    draft = target.parent / f"{target.name}.partial"
    shutil.rmtree(draft, ignore_errors=True)  # left by an interrupted run
    draft.mkdir()
    try:
        with tqdm(total=size, unit=" weights", unit_scale=True, desc=f"{checkpoint.kind} to {to}") as bar:
            WRITERS[to](checkpoint, draft, stored, progress=bar.update, **options)
        draft.rename(target)
    except (OSError, ValueError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        if _is_full(error):
            raise OSError(
                errno.ENOSPC,
                f"the disk is full: {target} needs {size * stored.itemsize / 1e9:.1f} GB; nothing was left",
            ) from error
        raise
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _check_space(folder: pathlib.Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{folder} has {free / 1e9:.1f} GB free and {needed / 1e9:.1f} GB are needed; nothing was written",
        )


def _is_full(error: Exception) -> bool:
    # TensorStore says so only in the message.
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in str(error)


def _refuse_unused_flags(source: str) -> None:
    """Raises if a flag is given that would have no effect."""
    for flag, used, belongs in (
        ("shards", _TO.value == "meta", "--to=meta"),
        ("file_bytes", _TO.value == "huggingface", "--to=huggingface"),
        ("kv_pooling", _KV_HEADS.value is not None, "--kv_heads"),
        ("base", "peft" in (source, _TO.value), "--to=peft, or a source in PEFT's format"),
        ("max_length", source == "meta", f"a source in Meta's format; this one, {source}, says its own"),
    ):
        if flags.FLAGS[flag].present and not used:
            raise BadCheckpoint(f"--{flag} belongs to {belongs}")


def main(argv: list[str]) -> None:
    """Reads the flags and converts."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    options = {
        "meta": {"shards": _SHARDS.value},
        "huggingface": {"file_bytes": _FILE_BYTES.value},
        "peft": {"base": _BASE.value},
    }.get(_TO.value, {})
    if logging.get_verbosity() < logging.DEBUG:
        hide_absent_platforms()
    try:
        checkpoint = open_checkpoint(_SOURCE.value, _MAX_LENGTH.value, "" if _TO.value == "peft" else _BASE.value)
        _refuse_unused_flags(checkpoint.kind)
        if _TOKENIZER.value:
            tokenizer = pathlib.Path(expand_home(_TOKENIZER.value))
            check_tokenizer(tokenizer, checkpoint.config.vocab_size)
            checkpoint = dataclasses.replace(checkpoint, tokenizer_model=tokenizer)
        if checkpoint.tokenizer_model is None:
            logging.warning(
                "%s has no tokenizer.model: the target will have none; --tokenizer= names one", _SOURCE.value
            )
        if not _ALLOW_NAN.value:
            checkpoint = refuse_nan(checkpoint)
        if _KV_HEADS.value is not None:
            checkpoint = with_kv_heads(checkpoint, _KV_HEADS.value, _KV_POOLING.value)
        convert(checkpoint, _TARGET.value, _TO.value, _DTYPE.value, **options)
    except (OSError, ValueError) as error:
        logging.debug("the error was raised here", exc_info=True)
        sys.exit(f"error: {error}")
    logging.info("done: %s", _TARGET.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["source", "target", "to"])
    app.run(main)
