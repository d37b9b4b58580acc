"""config.json of a Hugging Face folder: the network it describes, if that is one of Llama 2's.

Newer versions of transformers read other fields than older ones, and both ignore fields that they do not know. A config
that says two things, or asks for what Llama 2 does not have, would load as another network: it is refused.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from llama2_jax.interop.checkpoint import BadCheckpoint, compute_dtype
from llama2_jax.models.config import ModelConfig

HEADS = {"LlamaForCausalLM": "language", "LlamaForSequenceClassification": "scalar"}
# Fields that can change the network into one that we do not have, with the values that do not. pretraining_tp only
# changes the order of sums. Dropout (attention_dropout) is not a part of the network in use.
_PLAIN = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "is_causal": (True, None),
    "per_layer_config": (None, {}),
    "partial_rotary_factor": (1.0, None),
    "quantization_config": (None,),
    "tie_word_embeddings": (False, True, None),
    "num_experts": (0, 1, None),
    "num_local_experts": (0, 1, None),
    "use_qk_norm": (False, None),
    "qk_layernorm": (False, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "logit_scale": (1.0, None),
    "logits_scaling": (1.0, None),
    "embedding_multiplier": (1.0, None),
    "attention_multiplier": (None,),
    "residual_multiplier": (1.0, None),
}
# Where a config may have rotary positions: transformers before 5 reads rope_theta and rope_scaling, 5 rope_parameters.
_ROPE = ("rope_scaling", "rope_parameters")
# What a description of unscaled positions may have, with the values that scale nothing.
_UNSCALED = {"factor": (1.0, None), "partial_rotary_factor": (1.0, None)}
_DEFAULT_THETA = 10000.0


def head_of(described: Mapping[str, Any], path: pathlib.Path) -> str:
    """Returns `language` or `scalar`.

    Raises:
      BadCheckpoint: if it is another architecture.
    """
    names = described.get("architectures")
    known = isinstance(names, list) and len(names) == 1 and names[0] in list(HEADS)
    if described.get("model_type") != "llama" or not known:
        raise BadCheckpoint(
            f"{path}: model_type {described.get('model_type')!r} with architectures {names} is not supported; expected "
            f"'llama' with one of: {', '.join(HEADS)}"
        )
    if HEADS[names[0]] == "scalar":
        _check_labels(described, path)
    return HEADS[names[0]]


def _check_labels(described: Mapping[str, Any], path: pathlib.Path) -> None:
    """Raises if a classifier has not one label, in either of the two fields that say how many there are."""
    names = described.get("id2label")
    if names is not None and not isinstance(names, Mapping):
        raise BadCheckpoint(f"{path}: id2label is {names!r}, expected an object with one label")
    said = (None if names is None else len(names), described.get("num_labels"))
    for labels in [count for count in said if count is not None] or [2]:  # transformers' own default
        if labels != 1:
            raise BadCheckpoint(f"{path}: the classifier has {labels!r} labels; a scalar model has 1")


def model_config(described: Mapping[str, Any], path: pathlib.Path, dtype: np.dtype) -> ModelConfig:
    """Returns the network.

    Args:
      described: the content of config.json.
      path: of the file, for messages.
      dtype: of the weights; the network computes in it, or in bfloat16 if it is a 16-bit one.

    Raises:
      BadCheckpoint: if fields are missing, contradict each other, or ask for what Llama 2 does not have.
    """
    theta = _rope_theta(described, path)
    for field, plain in _PLAIN.items():
        if field in described and described[field] not in plain:
            raise BadCheckpoint(f"{path}: {field} is {described[field]!r}; Llama 2 has {plain[0]!r}")
    _check_windows(described, path)
    _check_heads(described, path)
    try:
        heads, kv_heads = described["num_attention_heads"], described.get("num_key_value_heads")
        return ModelConfig(
            vocab_size=described["vocab_size"],
            dim=described["hidden_size"],
            layers=described["num_hidden_layers"],
            heads=heads,
            kv_heads=heads if kv_heads is None else kv_heads,
            ffn_hidden=described["intermediate_size"],
            max_length=described.get("max_position_embeddings", 2048),  # transformers' own default
            norm_eps=described.get("rms_norm_eps", 1e-6),
            rope_theta=theta,
            compute_dtype=compute_dtype(dtype),
        )
    except KeyError as error:
        raise BadCheckpoint(f"{path}: the field {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise BadCheckpoint(f"{path}: {error}") from error


def _rope_theta(described: Mapping[str, Any], path: pathlib.Path) -> float:
    """Returns the base of the rotary frequencies, which all places that name one must agree on."""
    thetas = {"rope_theta": described["rope_theta"]} if described.get("rope_theta") is not None else {}
    for place in _ROPE:
        rope = described.get(place) or {}
        if not isinstance(rope, Mapping):
            raise BadCheckpoint(f"{path}: {place} is {rope!r}, expected an object with fields, or null")
        if any(rope.get(name) not in ("default", None) for name in ("rope_type", "type")):
            raise BadCheckpoint(f"{path}: {place} is {dict(rope)}; Llama 2 has None: scaled rotary positions differ")
        for field in rope.keys() - {"rope_type", "type", "rope_theta"}:
            if rope[field] not in _UNSCALED.get(field, (None,)):
                raise BadCheckpoint(
                    f"{path}: {place} is {dict(rope)}: its type is 'default', which scales nothing, and its {field} is "
                    f"{rope[field]!r}; scaled rotary positions are not Llama 2's"
                )
        if rope.get("rope_theta") is not None:
            thetas[f"{place}.rope_theta"] = rope["rope_theta"]
    for name, theta in thetas.items():
        if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta < float("inf"):
            raise BadCheckpoint(f"{path}: {name} is {theta!r}, expected a number above 0")
    if len({float(theta) for theta in thetas.values()}) > 1:
        said = " and ".join(f"{name} is {theta!r}" for name, theta in thetas.items())
        raise BadCheckpoint(
            f"{path} contradicts itself: {said}. Versions of transformers differ in which they read, so the model's "
            "outputs do too: keep the one that it was trained with"
        )
    return float(next(iter(thetas.values()), _DEFAULT_THETA))


def _check_windows(described: Mapping[str, Any], path: pathlib.Path) -> None:
    """Raises if some layers attend to a part of the context only."""
    window = described.get("sliding_window")
    if window is not None and described.get("use_sliding_window") is not False:
        raise BadCheckpoint(
            f"{path}: sliding_window is {window!r}; Llama 2 has None: every layer attends to everything"
        )
    kinds = described.get("layer_types") or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise BadCheckpoint(f"{path}: layer_types is {kinds!r}; Llama 2 has full_attention in every layer")


def _check_heads(described: Mapping[str, Any], path: pathlib.Path) -> None:
    """Raises if the numbers of heads do not fit each other, in the names of this format."""
    dim, heads, kv_heads, size = (
        described.get(name) for name in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    )
    if not all(isinstance(number, int) and number > 0 for number in (dim, heads)):
        return  # the network says what is wrong
    if dim % heads:
        raise BadCheckpoint(f"{path}: hidden_size {dim} cannot be split among num_attention_heads {heads}")
    if size is not None and size != dim // heads:
        raise BadCheckpoint(f"{path}: head_dim is {size!r}; Llama 2 has hidden_size / heads = {dim // heads}")
    if kv_heads is not None and (not isinstance(kv_heads, int) or kv_heads < 1 or heads % kv_heads):
        raise BadCheckpoint(
            f"{path}: num_key_value_heads is {kv_heads!r}, which does not divide num_attention_heads {heads}"
        )
