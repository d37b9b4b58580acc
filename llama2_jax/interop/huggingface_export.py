"""Writes a Hugging Face folder: config.json, safetensors in files of a bounded size, tokenizer files."""

import json
import pathlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from absl import logging

from llama2_jax.interop.checkpoint import Checkpoint, cast, check_tokenizer, copy_tokenizer
from llama2_jax.interop.huggingface_tokenizer import tokenizer_config
from llama2_jax.interop.names import NAMING, Stored, features_of_ours, stored_pieces, transposed
from llama2_jax.interop.safetensors_file import SafetensorsWriter
from llama2_jax.interop.tokenizer_check import first_difference
from llama2_jax.interop.tokenizer_json import tokenizer_json
from llama2_jax.models.config import ModelConfig
from llama2_jax.text.tokenizer import Tokenizer

FILE_BYTES = 5 * 10**9


def write_huggingface(
    checkpoint: Checkpoint,
    target: pathlib.Path,
    dtype: np.dtype,
    file_bytes: int = FILE_BYTES,
    progress: Callable[[int], Any] = lambda size: None,
) -> None:
    """Writes a model that transformers loads: LlamaForCausalLM, or LlamaForSequenceClassification for a scalar one.

    Args:
      checkpoint: the model.
      target: an existing, empty folder.
      dtype: of the weights written.
      file_bytes: the largest size of a file of weights; one tensor is never split.
      progress: called with the number of elements of each piece when it is written.

    Raises:
      BadCheckpoint: if `checkpoint.read` does.
      ValueError: if file_bytes is not positive.
    """
    if file_bytes < 1:
        raise ValueError(f"file_bytes is {file_bytes}, expected the largest size of a file, such as {FILE_BYTES}")
    config, head = checkpoint.config, checkpoint.head
    stored = list(stored_pieces(config, head, "huggingface"))
    files = _distribute(stored, dtype.itemsize, file_bytes)
    with ExitStack() as stack:
        writers = {file: SafetensorsWriter(target / file, shapes, dtype) for file, shapes in files.items()}
        for writer in writers.values():
            stack.callback(writer.abandon)
        place = {name: file for file, shapes in files.items() for name in shapes}
        for one in stored:
            array = _as_theirs(checkpoint.read(one.piece.name, one.piece.layer), one.piece.name, config, head)
            writers[place[one.name]].write(one.name, cast(array, dtype, one.piece.label))
            del array
            progress(one.piece.size)
        for writer in writers.values():
            writer.close()
        stack.pop_all()
    if len(files) > 1:
        size = sum(one.piece.size for one in stored) * dtype.itemsize
        _write_json(target / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": place})
    tokenizer = None
    if checkpoint.tokenizer_model is not None:
        tokenizer = check_tokenizer(checkpoint.tokenizer_model, config.vocab_size)
        _write_tokenizer(checkpoint.tokenizer_model, target, config.max_length, padded=head == "scalar")
    if head == "language":
        _write_json(target / "generation_config.json", _generation_config(tokenizer))
    _write_json(target / "config.json", huggingface_config(config, head, dtype, tokenizer))


def huggingface_config(config: ModelConfig, head: str, dtype: np.dtype, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Returns the content of config.json."""
    described = {
        "architectures": ["LlamaForCausalLM" if head == "language" else "LlamaForSequenceClassification"],
        "model_type": "llama",
        "attention_bias": False,
        "hidden_act": "silu",
        "hidden_size": config.dim,
        "initializer_range": 0.02,
        "intermediate_size": config.ffn_hidden,
        "max_position_embeddings": config.max_length,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": False,
        "torch_dtype": str(dtype),
        "use_cache": True,
        "vocab_size": config.vocab_size,
        **_special_ids(tokenizer),
    }
    if head == "scalar":
        # transformers reads the score at the last token that is not padding, which must not be what ends an answer.
        described |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
        described["pad_token_id"] = tokenizer.padding_id if tokenizer else 0  # as tokenizer_config.json has it
    return described


def _special_ids(tokenizer: Tokenizer | None) -> dict[str, int]:
    # Without a tokenizer: those of the released one.
    return {"bos_token_id": tokenizer.bos_id if tokenizer else 1, "eos_token_id": tokenizer.end_id if tokenizer else 2}


def _generation_config(tokenizer: Tokenizer | None) -> dict[str, Any]:
    # Temperature and nucleus of Meta's chat example.
    return {**_special_ids(tokenizer), "do_sample": True, "temperature": 0.6, "top_p": 0.9}


def _write_tokenizer(source: pathlib.Path, target: pathlib.Path, max_length: int, padded: bool) -> None:
    copy_tokenizer(source, target)
    _write_json(target / "tokenizer_config.json", tokenizer_config(source, max_length, padded))
    content = tokenizer_json(source)
    difference = first_difference(source, content)
    if not difference:
        (target / "tokenizer.json").write_text(content, encoding="utf-8")
        return
    logging.warning(
        "%s has other rules than Llama's, which tokenizer.json cannot express: %s. It is left out. What transformers "
        "makes of tokenizer.model instead may have other ids too: to be sure, encode with the sentencepiece package",
        source, difference,
    )  # fmt: skip


def _as_theirs(array: np.ndarray, name: str, config: ModelConfig, head: str) -> np.ndarray:
    if not transposed(name):
        return array
    if rotated := NAMING[head][name].rotated:
        return array.T[features_of_ours(getattr(config, rotated), config.head_dim)]
    return array.T


def _distribute(stored: list[Stored], itemsize: int, file_bytes: int) -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns the shapes of each file's tensors: layer after layer, as many as fit."""
    files: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for one in sorted(stored, key=_depth):
        size += one.piece.size * itemsize
        if size > file_bytes and files[-1]:
            files.append({})
            size = one.piece.size * itemsize
        files[-1][one.name] = one.shape
    if len(files) == 1:
        return {"model.safetensors": files[0]}
    return {f"model-{number:05d}-of-{len(files):05d}.safetensors": shapes for number, shapes in enumerate(files, 1)}


def _depth(stored: Stored) -> float:
    if stored.piece.layer is not None:
        return stored.piece.layer
    return -1 if stored.piece.name == "trunk/embedding" else float("inf")


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
