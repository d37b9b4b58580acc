"""The files of weights of a Hugging Face folder: found, merged and unwrapped, and what is wrong with them is said."""

import json
import re
import shutil

import numpy as np
import pytest

from llama2_jax.interop.checkpoint import BadCheckpoint
from llama2_jax.interop.huggingface import open_huggingface
from llama2_jax.interop.huggingface_export import write_huggingface
from llama2_jax.interop.safetensors_file import SafetensorsWriter, read_safetensors
from llama2_jax.interop.torch_file import TorchFileWriter
from tests.interop.huggingface_folder import FLOAT32, change, rewrite, write_folder
from tests.interop.written import write_with
from tests.random_model import GROUPED, assert_same, in_memory, random_arrays


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path)


def test_bin_files_with_an_index_are_read(folder):
    arrays = random_arrays(GROUPED)
    stored = read_safetensors(folder / "model.safetensors")
    places = {name: f"pytorch_model-0000{1 + number % 2}-of-00002.bin" for number, name in enumerate(stored)}
    for file in set(places.values()):
        own = [name for name in stored if places[name] == file]
        writer = TorchFileWriter(folder / file, {name: stored[name].shape for name in own}, FLOAT32)
        for name in own:
            writer.write(name, np.ascontiguousarray(stored[name].view()))
        writer.close()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "model.safetensors").unlink()
    assert_same(open_huggingface(folder), arrays)


def test_a_missing_tensor(folder):
    rewrite(folder, lambda arrays: arrays.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(BadCheckpoint, match=r"tensor 'model\.layers\.1\.mlp\.up_proj\.weight' is missing"):
        open_huggingface(folder)


def test_a_tensor_too_many(folder):
    rewrite(folder, lambda arrays: arrays.update({"model.layers.0.self_attn.q_proj.bias": np.zeros(48, np.float32)}))
    with pytest.raises(BadCheckpoint, match=r"does not have: model\.layers\.0\.self_attn\.q_proj\.bias"):
        open_huggingface(folder)


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.parametrize("dropped", [EMBEDDING, HEAD, ""])
def test_a_tied_matrix_is_read_under_either_name(folder, dropped):
    arrays = random_arrays(GROUPED)
    tied = arrays["trunk/embedding"]

    def tie(stored):
        stored[HEAD] = tied.copy()
        stored.pop(dropped, None)

    rewrite(folder, tie)
    change(folder / "config.json", tie_word_embeddings=True)
    assert_same(open_huggingface(folder), arrays | {"head/kernel": tied.T})


def test_a_tied_model_with_two_matrices_contradicts_itself(folder):
    change(folder / "config.json", tie_word_embeddings=True)
    with pytest.raises(BadCheckpoint, match=r"tie_word_embeddings is true, but .*embed_tokens.* and lm_head.* differ"):
        open_huggingface(folder)


@pytest.mark.parametrize("dropped", [EMBEDDING, HEAD])
def test_one_matrix_of_a_model_that_is_not_tied(folder, dropped):
    rewrite(folder, lambda arrays: arrays.pop(dropped))
    with pytest.raises(BadCheckpoint, match=f"tensor '{dropped}' is missing, .*tie_word_embeddings is false there"):
        open_huggingface(folder)


def renamed(prefix, names=lambda name: True):
    def change(arrays):
        for name in [name for name in arrays if names(name)]:
            arrays[prefix + name] = arrays.pop(name)

    return change


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "base_model.model.", "model.", "anything.at.all."]
)
def test_a_prefix_that_all_names_share_is_removed(folder, prefix):
    rewrite(folder, renamed(prefix))
    assert_same(open_huggingface(folder), random_arrays(GROUPED))


def test_a_prefix_that_some_names_have_is_said(folder):
    rewrite(
        folder,
        lambda arrays: [renamed("pretrained_model.")(arrays), arrays.update({"v_head.bias": np.ones(1, np.float32)})],
    )
    with pytest.raises(
        BadCheckpoint, match=r"is missing.*instead there are pretrained_model\.lm_head\.weight.*wraps it"
    ):
        open_huggingface(folder)
    rewrite(folder, lambda arrays: arrays.pop("v_head.bias"))
    rewrite(
        folder,
        lambda arrays: arrays.update({"pretrained_model.model.layers.0.mlp.up_proj.lora_A": np.ones(1, np.float32)}),
    )
    with pytest.raises(BadCheckpoint, match=r"1 tensors of adapters, such as .*lora_A: merge them into the model"):
        open_huggingface(folder)


def in_shards(folder):
    """The weights in four files, without the index; returns their names."""
    (folder / "model.safetensors").unlink()
    write_huggingface(in_memory(GROUPED, random_arrays(GROUPED)), folder, FLOAT32, file_bytes=60_000)
    (folder / "model.safetensors.index.json").unlink()
    return sorted(path.name for path in folder.glob("*.safetensors"))


def test_shards_without_an_index(folder):
    shards = in_shards(folder)
    assert len(shards) == 4
    assert_same(open_huggingface(folder), random_arrays(GROUPED))
    shutil.copyfile(folder / shards[0], folder / "other")
    (folder / shards[1]).rename(folder / "second")
    with pytest.raises(BadCheckpoint, match=r"has 3 of 4 files of weights .*no index: number 2 is missing; download"):
        open_huggingface(folder)
    shutil.copyfile(folder / shards[0], folder / shards[1])
    with pytest.raises(BadCheckpoint, match=r"model-00002.*: tensor '.*' is in model-00001.* too: two models' files"):
        open_huggingface(folder)
    shutil.copyfile(folder / "second", folder / shards[1])
    shutil.copyfile(folder / shards[0], folder / "model-00001-of-00002.safetensors")
    with pytest.raises(BadCheckpoint, match=r"has files of several models, .*, and no index"):
        open_huggingface(folder)


def test_a_tensor_in_two_files_of_an_index(folder):
    shards = in_shards(folder)
    tensors = {shard: read_safetensors(folder / shard) for shard in shards}
    places = {name: shard for shard in shards for name in tensors[shard]}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert_same(open_huggingface(folder), random_arrays(GROUPED))
    own = {name: np.array(tensor.view()) for name, tensor in tensors[shards[3]].items()}
    (folder / shards[3]).unlink()
    write_with(SafetensorsWriter, folder / shards[3], own | {EMBEDDING: np.zeros((96, 48), np.float32)})
    with pytest.raises(BadCheckpoint, match=rf"{shards[3]}: tensor '{EMBEDDING}' is in {places[EMBEDDING]} too"):
        open_huggingface(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model-00001-of-00001.safetensors"])
def test_a_broken_link_and_a_folder_are_named(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).symlink_to("../blobs/abc")
    with pytest.raises(BadCheckpoint, match=rf"{name} is a link to \.\./blobs/abc, which is no file"):
        open_huggingface(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(BadCheckpoint, match=rf"{name} is a folder, expected a file of weights"):
        open_huggingface(folder)


def test_a_file_is_read_beside_a_broken_link(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    places = dict.fromkeys(
        read_safetensors(folder / "model-00001-of-00001.safetensors"), "model-00001-of-00001.safetensors"
    )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "model.safetensors").symlink_to("nowhere")
    assert_same(open_huggingface(folder), random_arrays(GROUPED))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adapter_model.safetensors", "has no weights but an adapter's .*merge it into its model first"),
        ("weights.safetensors", "has no weights under these names; found weights.safetensors: rename a single file"),
    ],
)
def test_weights_under_other_names_are_named(folder, name, message):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(BadCheckpoint, match=message):
        open_huggingface(folder)


def test_a_file_cut_off(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors: tensor .* cut off; download it again"):
        open_huggingface(folder)


def test_weights_of_another_dtype(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))
    with pytest.raises(BadCheckpoint, match="is int32, expected one of float32, float16, bfloat16"):
        open_huggingface(folder)


def test_no_weights_and_no_config(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"has no weights; expected one of: model\.safetensors"):
        open_huggingface(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(BadCheckpoint, match=r"config\.json is not JSON"):
        open_huggingface(folder)
    (folder / "config.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"config\.json is missing"):
        open_huggingface(folder)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"lm_head.weight": "gone.safetensors"}, r"names the file 'gone\.safetensors', which is not in"),
        ({"lm_head.weight": "../part.safetensors"}, r"names the file '\.\./part\.safetensors', which is not in"),
        *(
            ({"lm_head.weight": file}, f"names the file {re.escape(repr(file))}, which is not in")
            for file in (None, 5, ["a"], "..", ".", "", "/", "a\0b")
        ),
        ({"bias": "part.safetensors"}, r"part\.safetensors: tensor 'bias' is missing, but .* lists it there"),
    ],
)
def test_an_index_that_lies(folder, places, message):
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    shutil.copyfile(folder / "part.safetensors", folder.parent / "part.safetensors")
    true = dict.fromkeys(read_safetensors(folder / "part.safetensors"), "part.safetensors")
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": true}))
    open_huggingface(folder)
    path.write_text(json.dumps({"weight_map": true | places}))
    with pytest.raises(BadCheckpoint, match=message):
        open_huggingface(folder)
    path.write_text("{}")
    with pytest.raises(BadCheckpoint, match="the field 'weight_map' is missing"):
        open_huggingface(folder)
