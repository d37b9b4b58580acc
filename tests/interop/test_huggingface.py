"""Hugging Face folders: what is written is read, and what is wrong with one is said."""

import json
import shutil

import numpy as np
import pytest

from llama2_jax.interop.checkpoint import DTYPES, BadCheckpoint
from llama2_jax.interop.huggingface import open_huggingface
from llama2_jax.interop.huggingface_export import write_huggingface
from llama2_jax.interop.safetensors_file import SafetensorsWriter, read_safetensors
from llama2_jax.interop.torch_file import TorchFileWriter
from tests.random_model import GROUPED, MULTI_HEAD, assert_same, in_memory, random_arrays

FLOAT32 = np.dtype(np.float32)


@pytest.fixture
def folder(tmp_path):
    write_huggingface(in_memory(GROUPED, random_arrays(GROUPED)), tmp_path, FLOAT32)
    return tmp_path


def change(path, **fields):
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in content.items() if value != "absent"}))


def rewrite(folder, change):
    """Writes the weights anew, with what `change` makes of the dictionary of arrays."""
    path = folder / "model.safetensors"
    arrays = {name: np.array(tensor.view()) for name, tensor in read_safetensors(path).items()}
    change(arrays)
    path.unlink()
    writer = SafetensorsWriter(path, {name: array.shape for name, array in arrays.items()}, FLOAT32)
    for name, array in arrays.items():
        writer.write(name, array)
    writer.close()


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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "mistral"}, "model_type 'mistral' with architectures .* is not supported; expected 'llama'"),
        ({"architectures": ["LlamaModel"]}, "LlamaModel.* one of: LlamaForCausalLM, LlamaForSequenceClassification"),
        ({"architectures": None}, "is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is .*linear.*; Llama 2 has None"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "scaled rotary positions"),
        ({"attention_bias": True}, "attention_bias is True; Llama 2 has False"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; Llama 2 has 'silu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"head_dim": 16}, "head_dim is 16; Llama 2 has hidden_size / heads = 8"),
        ({"hidden_size": "absent"}, "the field 'hidden_size' is missing"),
        ({"num_attention_heads": 5}, "cannot be split among model.heads=5"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"vocab_size": 97}, r"'lm_head.weight' has shape \[96, 48\], expected \[97, 48\]"),
        ({"intermediate_size": 72}, r"mlp.down_proj.weight' has shape \[48, 80\], expected \[48, 72\]"),
        ({"num_hidden_layers": 3}, r"tensor 'model.layers.2.input_layernorm.weight' is missing"),
        ({"num_hidden_layers": 1}, r"tensors that Llama 2 does not have: model.layers.1.*\(of 9\)"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_is_refused(folder, fields, message):
    change(folder / "config.json", **fields)
    with pytest.raises(BadCheckpoint, match=message):
        open_huggingface(folder)


def test_a_classifier_of_two_labels_is_refused(tmp_path):
    write_huggingface(in_memory(GROUPED, random_arrays(GROUPED, "scalar"), "scalar"), tmp_path, FLOAT32)
    change(tmp_path / "config.json", id2label={"0": "bad", "1": "good"})
    with pytest.raises(BadCheckpoint, match="the classifier has 2 labels; a scalar model has 1"):
        open_huggingface(tmp_path)


def test_a_missing_tensor(folder):
    rewrite(folder, lambda arrays: arrays.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(BadCheckpoint, match=r"tensor 'model\.layers\.1\.mlp\.up_proj\.weight' is missing"):
        open_huggingface(folder)


def test_a_tensor_too_many(folder):
    rewrite(folder, lambda arrays: arrays.update({"model.layers.0.self_attn.q_proj.bias": np.zeros(48, np.float32)}))
    with pytest.raises(BadCheckpoint, match=r"does not have: model\.layers\.0\.self_attn\.q_proj\.bias"):
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


def test_a_tokenizer_of_another_size(folder, tokenizer_model):
    shutil.copyfile(tokenizer_model, folder / "tokenizer.model")
    with pytest.raises(BadCheckpoint, match="has 300 tokens and the model's embedding 96 rows"):
        open_huggingface(folder)
