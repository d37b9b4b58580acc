"""Reads a Hugging Face folder: config.json with safetensors, or the older pytorch_model.bin, one file or many."""

import pathlib
from collections.abc import Mapping

import numpy as np

from llama2_jax.interop.checkpoint import (
    DTYPES,
    Checkpoint,
    Index,
    check_tokenizer,
    local_folder,
    read_json_object,
    widest,
)
from llama2_jax.interop.huggingface_config import head_of, model_config
from llama2_jax.interop.huggingface_weights import check_names, stored_tensors, with_tied_head
from llama2_jax.interop.names import NAMING, rows_of_theirs, stored_pieces, transposed
from llama2_jax.interop.special_ids import check_special_ids
from llama2_jax.interop.stored_tensor import StoredTensor, check_stored
from llama2_jax.models.config import ModelConfig


def open_huggingface(path: str | pathlib.Path) -> Checkpoint:
    """Opens a folder; checks names, shapes and dtypes of all tensors without reading their values.

    Args:
      path: a local folder with config.json and weights of a LlamaForCausalLM, or of a LlamaForSequenceClassification
        with one label, which is a scalar model. A tied output head is read as a copy of the embedding.

    Raises:
      BadCheckpoint: if the architecture is another one, a file is missing or cut off, a tensor is missing, unknown or
        of another shape, tokenizer.model does not fit, or its ids of BOS and EOS are no ids in config.json or
        generation_config.json.
    """
    folder = local_folder(path)
    path = folder / "config.json"
    described = read_json_object(path)
    head = head_of(described, path)
    wanted = list(stored_pieces(model_config(described, path, DTYPES["float32"]), head, "huggingface"))
    tensors = stored_tensors(folder)
    if head == "language":
        tensors = with_tied_head(tensors, bool(described.get("tie_word_embeddings")), folder)
    check_names(tensors, [stored.name for stored in wanted], folder)
    for stored in wanted:
        check_stored(tensors[stored.name], stored.shape, DTYPES)
    dtype = widest(tensors[stored.name].dtype for stored in wanted)
    config = model_config(described, path, dtype)
    tokenizer_model = folder / "tokenizer.model"
    if tokenizer_model.exists():
        check_special_ids(folder, check_tokenizer(tokenizer_model, config.vocab_size))
    return Checkpoint(
        kind="huggingface",
        folder=folder,
        config=config,
        head=head,
        dtype=dtype,
        tokenizer_model=tokenizer_model if tokenizer_model.exists() else None,
        read=_reader(tensors, config, head),
    )


def _reader(tensors: Mapping[str, StoredTensor], config: ModelConfig, head: str):
    def read(name: str, layer: int | None = None, index: Index | None = None) -> np.ndarray:
        naming = NAMING[head][name]
        array = tensors[naming.huggingface.format(layer)].view()
        index = (slice(None),) * array.ndim if index is None else index
        if not transposed(name):
            return array[index]
        inputs, outputs = index
        if naming.rotated:
            rows = rows_of_theirs(getattr(config, naming.rotated), config.head_dim)
            return array[rows[outputs], inputs].T
        return array[outputs, inputs].T

    return read
