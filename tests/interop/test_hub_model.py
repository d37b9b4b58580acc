"""Of a repository on the hub only the files of one model are wanted."""

import pytest

from llama2_jax.hub.errors import HubError
from llama2_jax.interop.hub_model import local_model, model_files

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        (
            ["config.json", *SHARDS, "model.safetensors.index.json", "tokenizer.json", "tokenizer.model"],
            ["README.md", "pytorch_model-00001-of-00002.bin", "LICENSE.txt", "original/params.json"],
        ),
        (["config.json", "pytorch_model.bin", "tokenizer.model"], ["tf_model.h5", "flax_model.msgpack"]),
        (["checklist.json", "consolidated.00.pth", "params.json", "tokenizer.model"], ["checklist.chk", "USE.md"]),
        (
            ["checkpoints/0/params/array/c/0", "checkpoints/0/_METADATA", "model.json", "tokenizer.model"],
            ["metrics.jsonl", "tensorboard/events", "config.json", "notes/more.json"],
        ),
    ],
    ids=["safetensors", "bin", "meta", "ours"],
)  # fmt: skip
def test_the_files_of_one_format(wanted, others):
    assert model_files([*others, *wanted]) == sorted(wanted)


def test_a_repository_without_a_model_is_refused():
    with pytest.raises(HubError, match=r"has no model: found README\.md, data\.csv; expected one of: model\.json with"):
        model_files(["data.csv", "README.md"])


@pytest.mark.parametrize("address", ["hf://datasets/org/set", "hf://org/model/sub/folder"])
def test_what_is_no_address_of_a_model(address):
    with pytest.raises(HubError, match=r"a model's address is hf://<org>/<name>\[@<revision>\]"):
        local_model(address)


def test_a_folder_is_its_own(tmp_path):
    assert local_model(tmp_path) is tmp_path and local_model("checkpoints/mine") == "checkpoints/mine"
