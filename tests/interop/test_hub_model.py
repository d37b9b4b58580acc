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
    assert model_files("hf://org/model", [*others, *wanted]) == sorted(wanted)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["data.csv", "README.md"], "no model: found README.md, data.csv"),
        (
            ["adapter_config.json", "sub/config.json"],
            "adapter_config.json, but no weights beside it: found adapter_config.json, sub/config.json",
        ),
        (
            ["config.json", "pytorch_model.safetensors"],
            "config.json, but no weights beside it: found config.json, pytorch_model.safetensors",
        ),
        (["params.json", "model-q4.gguf"], "params.json, but no weights beside it: found model-q4.gguf, params.json"),
    ],
)
def test_a_repository_without_a_model_is_refused(names, message):
    with pytest.raises(HubError) as error:
        model_files("hf://org/model@v1", names)
    assert str(error.value).startswith(f"hf://org/model@v1: the repository has {message}; expected one of: model.json")


def test_adapters_are_a_model():
    names = ["adapter_config.json", "adapter_model.safetensors", "README.md", "tokenizer.model"]
    assert model_files("hf://org/model", names) == sorted(set(names) - {"README.md"})


def test_a_model_is_found_beside_the_description_of_another_kind():
    names = ["config.json", "params.json", "consolidated.00.pth", "tokenizer.model"]
    assert model_files("hf://org/model", names) == ["consolidated.00.pth", "params.json", "tokenizer.model"]


def test_what_a_repository_lacks_is_said_with_its_address(hub):
    hub.publish("org/model", {"README.md": "about"})
    with pytest.raises(HubError, match=r"^hf://org/model@main: the repository has no model: found README\.md"):
        local_model("hf://org/model@main")


@pytest.mark.parametrize("address", ["hf://datasets/org/set", "hf://org/model/sub/folder"])
def test_what_is_no_address_of_a_model(address):
    with pytest.raises(HubError, match=r"a model's address is hf://<org>/<name>\[@<revision>\]"):
        local_model(address)


def test_a_folder_is_its_own(tmp_path):
    assert local_model(tmp_path) is tmp_path and local_model("checkpoints/mine") == "checkpoints/mine"
