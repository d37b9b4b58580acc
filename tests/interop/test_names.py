"""How queries and keys are reordered between the two ways to rotate."""

import numpy as np
import pytest

from llama2_jax.interop.names import NAMING, features_of_ours, rows_of_theirs, stored_pieces
from tests.models import reference_llama
from tests.random_model import GROUPED


def rotate_half(x, positions, theta):
    """transformers' rotation: a feature of a head's first half turns with one of its second. [length, heads, d]"""
    half = x.shape[-1] // 2
    angles = positions[:, None] * theta ** (-np.arange(half) / half)
    cosine, sine = (np.concatenate([f(angles)] * 2, axis=-1)[:, None] for f in (np.cos, np.sin))
    return x * cosine + np.concatenate([-x[..., half:], x[..., :half]], axis=-1) * sine


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 2), (2, 4), (3, 10), (4, 8)])
def test_scores_are_the_same_in_either_order(heads, head_dim):
    rng = np.random.default_rng(0)
    ours_q, ours_k = rng.normal(size=(2, 6, heads, head_dim))
    order = features_of_ours(heads, head_dim)
    theirs_q, theirs_k = (x.reshape(6, -1)[:, order].reshape(x.shape) for x in (ours_q, ours_k))
    positions = np.arange(6) * 17
    q, k = (reference_llama.rotate(x, positions, 1e4) for x in (ours_q, ours_k))
    other_q, other_k = (rotate_half(x, positions, 1e4) for x in (theirs_q, theirs_k))
    np.testing.assert_allclose(np.einsum("qhd,khd->hqk", q, k), np.einsum("qhd,khd->hqk", other_q, other_k), atol=1e-12)
    np.testing.assert_array_equal(order[rows_of_theirs(heads, head_dim)], np.arange(heads * head_dim))


@pytest.mark.parametrize("kind", ["huggingface", "meta"])
def test_names_are_the_published_ones(kind):
    names = {stored.name: stored.shape for stored in stored_pieces(GROUPED, "language", kind)}
    published = {
        "huggingface": {
            "model.embed_tokens.weight": (96, 48), "lm_head.weight": (96, 48), "model.norm.weight": (48,),
            "model.layers.1.self_attn.q_proj.weight": (48, 48), "model.layers.1.self_attn.k_proj.weight": (16, 48),
            "model.layers.1.self_attn.v_proj.weight": (16, 48), "model.layers.1.self_attn.o_proj.weight": (48, 48),
            "model.layers.1.mlp.gate_proj.weight": (80, 48), "model.layers.1.mlp.up_proj.weight": (80, 48),
            "model.layers.1.mlp.down_proj.weight": (48, 80), "model.layers.1.input_layernorm.weight": (48,),
            "model.layers.1.post_attention_layernorm.weight": (48,),
        },
        "meta": {
            "tok_embeddings.weight": (96, 48), "output.weight": (96, 48), "norm.weight": (48,),
            "layers.1.attention.wq.weight": (48, 48), "layers.1.attention.wk.weight": (16, 48),
            "layers.1.attention.wv.weight": (16, 48), "layers.1.attention.wo.weight": (48, 48),
            "layers.1.feed_forward.w1.weight": (80, 48), "layers.1.feed_forward.w3.weight": (80, 48),
            "layers.1.feed_forward.w2.weight": (48, 80), "layers.1.attention_norm.weight": (48,),
            "layers.1.ffn_norm.weight": (48,),
        },
    }[kind]  # fmt: skip
    assert names.items() >= published.items()
    assert len(names) == 3 + 9 * 2


def test_every_parameter_has_a_name():
    for head in ("language", "scalar"):
        assert {stored.piece.name for stored in stored_pieces(GROUPED, head, "huggingface")} == NAMING[head].keys()
