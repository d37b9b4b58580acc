"""Hugging Face folders: what is written is read, whole or in parts, with its tokenizer."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from llama2_jax.interop.checkpoint import DTYPES, BadCheckpoint
from llama2_jax.interop.huggingface import open_huggingface
from llama2_jax.interop.huggingface_export import write_huggingface
from llama2_jax.interop.safetensors_file import read_safetensors
from tests.interop.huggingface_folder import FLOAT32, change, write_folder
from tests.random_model import GROUPED, MULTI_HEAD, assert_same, in_memory, random_arrays
from tests.text.other_rules import train_with


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path)


@pytest.mark.parametrize("config", [MULTI_HEAD, GROUPED], ids=["multi_head", "grouped"])
@pytest.mark.parametrize("head", ["language", "scalar"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_what_is_written_is_read(tmp_path, config, head, dtype):
    arrays = {name: array.astype(dtype) for name, array in random_arrays(config, head).items()}
    write_huggingface(in_memory(config, arrays, head), tmp_path, dtype, file_bytes=10_000)
    checkpoint = open_huggingface(tmp_path)
    assert (checkpoint.kind, checkpoint.head, checkpoint.dtype) == ("huggingface", head, dtype)
    assert_same(checkpoint, arrays)


def test_parts_are_parts_of_the_whole(folder):
    checkpoint = open_huggingface(folder)
    for name in ("trunk/layers/query", "trunk/layers/key", "trunk/layers/down", "trunk/layers/value"):
        part = (slice(3, 11), slice(5, 16))
        np.testing.assert_array_equal(checkpoint.read(name, 1, part), checkpoint.read(name, 1)[part])
    part = (slice(90, 96), slice(0, 7))
    np.testing.assert_array_equal(
        checkpoint.read("trunk/embedding", None, part), checkpoint.read("trunk/embedding")[part]
    )
    np.testing.assert_array_equal(
        checkpoint.read("trunk/final_norm", None, (slice(4, 9),)), checkpoint.read("trunk/final_norm")[4:9]
    )


def test_files_are_as_large_as_asked_and_hold_everything_once(tmp_path):
    write_huggingface(in_memory(GROUPED, random_arrays(GROUPED)), tmp_path, FLOAT32, file_bytes=40_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    found = {path.name: read_safetensors(path) for path in tmp_path.glob("*.safetensors")}
    assert all(sum(tensor.span for tensor in tensors.values()) <= 40_000 for tensors in found.values())
    assert index["weight_map"] == {name: file for file, tensors in found.items() for name in tensors}
    assert index["metadata"]["total_size"] == sum(
        tensor.span for tensors in found.values() for tensor in tensors.values()
    )
    assert sorted(found) == [f"model-{n:05d}-of-{len(found):05d}.safetensors" for n in range(1, len(found) + 1)]


@pytest.mark.parametrize("file_bytes", [0, -1])
def test_files_of_no_size_are_refused(tmp_path, file_bytes):
    with pytest.raises(ValueError, match=f"file_bytes is {file_bytes}, expected the largest size of a file"):
        write_huggingface(in_memory(GROUPED, random_arrays(GROUPED)), tmp_path, FLOAT32, file_bytes=file_bytes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rules", "unknown"), [({}, 0), ({"pad_id": 0, "unk_id": 3}, 3), ({"bos_id": 0, "eos_id": 1, "unk_id": 2}, 2)]
)
def test_a_reward_model_is_padded_with_one_id(tmp_path, rules, unknown):
    """transformers finds the last token by config.json's id; its tokenizer pads by tokenizer_config.json."""
    config = dataclasses.replace(GROUPED, vocab_size=480)
    tokenizer = tmp_path / "tokenizer.model"
    tokenizer.write_bytes(train_with(rules))
    target = tmp_path / "target"
    target.mkdir()
    write_huggingface(in_memory(config, random_arrays(config, "scalar"), "scalar", tokenizer), target, FLOAT32)
    token = json.loads((target / "tokenizer_config.json").read_text())["pad_token"]
    ids = json.loads((target / "tokenizer.json").read_text())["model"]["vocab"]
    assert json.loads((target / "config.json").read_text())["pad_token_id"] == ids[token] == unknown


def test_an_end_that_is_none_of_the_tokenizers_is_refused(tmp_path, tokenizer_model):
    config = dataclasses.replace(GROUPED, vocab_size=300)
    write_huggingface(in_memory(config, random_arrays(config), tokenizer=tokenizer_model), tmp_path, FLOAT32)
    change(tmp_path / "generation_config.json", eos_token_id="2")
    with pytest.raises(BadCheckpoint, match=r"generation_config\.json: eos_token_id is '2', expected an id"):
        open_huggingface(tmp_path)


def test_a_tokenizer_of_another_size(folder, tokenizer_model):
    shutil.copyfile(tokenizer_model, folder / "tokenizer.model")
    with pytest.raises(BadCheckpoint, match="has 300 tokens and the model's embedding 96 rows"):
        open_huggingface(folder)
