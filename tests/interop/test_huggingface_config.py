"""config.json: what is not Llama 2, or contradicts itself, is refused."""

import dataclasses
import json
import shutil

import pytest

from llama2_jax.interop.checkpoint import BadCheckpoint
from llama2_jax.interop.huggingface import open_huggingface
from llama2_jax.interop.huggingface_export import write_huggingface
from tests.interop.huggingface_folder import FLOAT32, change, write_folder
from tests.random_model import GROUPED, in_memory, random_arrays


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path)


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
