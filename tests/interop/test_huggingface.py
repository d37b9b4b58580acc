"""Hugging Face folders: what is written is read, and what is wrong with one is said."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from llama2_jax.interop.checkpoint import DTYPES, BadCheckpoint
from llama2_jax.interop.huggingface import open_huggingface
from llama2_jax.interop.huggingface_export import write_huggingface
from llama2_jax.interop.safetensors_file import SafetensorsWriter, read_safetensors
from llama2_jax.interop.torch_file import TorchFileWriter
from tests.interop.written import write_with
from tests.random_model import GROUPED, MULTI_HEAD, assert_same, in_memory, random_arrays
from tests.text.other_rules import train_with

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
        *(
            ({"architectures": names}, "is not supported")
            for names in (None, 5, "LlamaForCausalLM", [["LlamaForCausalLM"]], [None], {"LlamaForCausalLM": 1})
        ),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is .*linear.*; Llama 2 has None"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "scaled rotary positions"),
        ({"attention_bias": True}, "attention_bias is True; Llama 2 has False"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"is_causal": False}, "is_causal is False; Llama 2 has True"),
        ({"per_layer_config": {"1": {"rms_norm_eps": 0.1}}}, "per_layer_config is .*; Llama 2 has None"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; Llama 2 has 'silu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"head_dim": 16}, "head_dim is 16; Llama 2 has hidden_size / heads = 8"),
        ({"hidden_size": "absent"}, "the field 'hidden_size' is missing"),
        ({"num_attention_heads": 5}, "hidden_size 48 cannot be split among num_attention_heads 5"),
        ({"num_key_value_heads": 4}, "num_key_value_heads is 4, which does not divide num_attention_heads 6"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0, which does not divide"),
        ({"num_attention_heads": "many"}, "model.heads is 'many'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; Llama 2 has 1.0"),
        ({"sliding_window": 4096}, "sliding_window is 4096; Llama 2 has None"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is .*sliding_attention"),
        ({"layer_types": 3}, "layer_types is 3"),
        ({"rope_scaling": {"rope_type": ["llama3"]}}, "rope_scaling is .*llama3"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'; Llama 2 has False"),
        ({"num_local_experts": 8}, "num_local_experts is 8; Llama 2 has 0"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0; Llama 2 has None"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        *(
            ({"rms_norm_eps": value}, rf"config\.json: model\.norm_eps is {value!r}; it must be a finite")
            for value in (float("nan"), -1, True, "1e-5", None)
        ),
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


BASES = "contradicts itself: rope_theta is 10000.0 and rope_parameters.rope_theta is 500000.0"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, BASES),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}, BASES),
        (
            {"rope_scaling": {"rope_type": "default", "rope_theta": 2e4}},
            "rope_theta is 10000.0 and rope_scaling.rope_theta is 20000.0",
        ),
        (
            {"rope_theta": None, "rope_scaling": {"rope_theta": 1e4}, "rope_parameters": {"rope_theta": 2e4}},
            "rope_scaling.rope_theta is 10000.0 and rope_parameters.rope_theta is 20000.0",
        ),
        ({"rope_parameters": {"rope_type": "default", "factor": 8.0}}, "type is 'default', .* its factor is 8.0"),
        ({"rope_parameters": {"rope_type": "default", "type": "linear", "factor": 8.0}}, "'linear'.* Llama 2 has None"),
        ({"rope_parameters": {"partial_rotary_factor": 0.25}}, "its partial_rotary_factor is 0.25"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "its full_attention is"),
        ({"rope_theta": "10000"}, "rope_theta is '10000', expected a number"),
        ({"rope_theta": 0}, "rope_theta is 0, expected a number above 0"),
        ({"rope_scaling": "linear"}, "rope_scaling is 'linear', expected an object"),
        *(
            (
                {field: {name: kind, "factor": 2.0}},
                f"{field} is .*'{kind}'.*; Llama 2 has None: scaled rotary positions",
            )
            for field, name in (
                ("rope_scaling", "type"),
                ("rope_scaling", "rope_type"),
                ("rope_parameters", "rope_type"),
            )
            for kind in ("linear", "dynamic", "yarn", "longrope", "llama3", "su", "mrope")
        ),
    ],
)
def test_rotary_positions_that_contradict_or_are_scaled_are_refused(folder, fields, message):
    change(folder / "config.json", **fields)
    with pytest.raises(BadCheckpoint, match=message):
        open_huggingface(folder)


def test_a_contradiction_is_refused_before_anything_else_is_missed(tmp_path):
    described = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_theta": 10000.0,
                 "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(BadCheckpoint, match=BASES):
        open_huggingface(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 500000}},
        {"rope_theta": "absent", "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_theta": "absent", "rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_parameters": None, "rope_scaling": None},
        {"rope_theta": 5e5, "rope_parameters": {}, "pretraining_tp": 2, "attention_dropout": 0.1, "head_dim": 8},
        {"rope_theta": 5e5, "sliding_window": 4096, "use_sliding_window": False, "layer_types": ["full_attention"] * 2},
        {"rope_theta": 5e5, "is_causal": True, "per_layer_config": None},
        {"rope_theta": 5e5, "mlp_bias": None, "partial_rotary_factor": 1.0, "attention_bias": "absent"},
    ],
)
def test_what_says_the_same_twice_or_changes_nothing_is_read(folder, fields):
    change(folder / "config.json", **fields)
    config = open_huggingface(folder).config
    assert config == dataclasses.replace(
        GROUPED, rope_theta=5e5, compute_dtype="float32", scan_layers=config.scan_layers
    )


@pytest.fixture(scope="module")
def scalar_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scalar")
    write_huggingface(in_memory(GROUPED, random_arrays(GROUPED, "scalar"), "scalar"), folder, FLOAT32)
    return folder


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id2label": {"0": "bad", "1": "good"}}, "the classifier has 2 labels; a scalar model has 1"),
        ({"num_labels": 2}, "the classifier has 2 labels; a scalar model has 1"),
        ({"id2label": "absent"}, "the classifier has 2 labels; a scalar model has 1"),
        ({"id2label": None}, "the classifier has 2 labels; a scalar model has 1"),
        ({"id2label": {}}, "the classifier has 0 labels"),
        ({"id2label": None, "num_labels": "many"}, "the classifier has 'many' labels"),
        ({"id2label": 1}, "id2label is 1, expected an object with one label"),
        ({"id2label": ["reward"]}, r"id2label is \['reward'\], expected an object"),
    ],
)
def test_a_classifier_of_other_labels_is_refused(scalar_folder, tmp_path, fields, message):
    shutil.copytree(scalar_folder, tmp_path, dirs_exist_ok=True)
    change(tmp_path / "config.json", **fields)
    with pytest.raises(BadCheckpoint, match=rf"config\.json: {message}"):
        open_huggingface(tmp_path)


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
