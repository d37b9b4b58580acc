"""The network, at once and in blocks, against the NumPy model in float64: within 1e-5, also far into a long text."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from llama2_jax.inference.stream import begin, make_streamer, read
from llama2_jax.models import decoding
from llama2_jax.models.config import ModelConfig, ffn_hidden
from llama2_jax.models.llama import LanguageModel, init_language_model
from tests.models import reference_llama

HEADS = 8
# Of logits that spread by 0.5. Measured: at most 1.1e-6, at all of these shapes and positions up to 4095.
TOLERANCE = 1e-5


def shape(kv_heads, length=4096, **changes):
    sizes = {"vocab_size": 100, "dim": 64, "layers": 2, "ffn_hidden": ffn_hidden(64, 4), "scan_layers": False}
    return ModelConfig(**{**sizes, "heads": HEADS, "kv_heads": kv_heads, "max_length": length, **changes})


@functools.cache
def weights(config):
    """Matrices three times as large as an initialisation's: attention is sharp, and every part matters."""
    fresh = jax.jit(init_language_model, static_argnums=0)(config, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(lambda path, x: x if "norm" in str(path[-1]) else 3 * x, fresh)


def tokens(config, length):
    return np.random.default_rng(0).integers(0, config.vocab_size, length)


def logits(config, ids):
    model = jax.jit(LanguageModel(config).apply)
    return model({"params": weights(config)}, ids[None], np.arange(len(ids))[None], np.ones((1, len(ids)), np.int32))[0]


@pytest.mark.parametrize(
    ("kv_heads", "length"),
    [
        *itertools.product((8, 2, 1), (60,)),
        *(pytest.param(*shape, marks=pytest.mark.slow) for shape in itertools.product((8, 2, 1), (1, 1000))),
        pytest.param(2, 4096, marks=pytest.mark.slow),
    ],
)
def test_logits(kv_heads, length):
    config = shape(kv_heads)
    ids = tokens(config, length)
    expected = reference_llama.logits(weights(config), config, ids)
    np.testing.assert_allclose(logits(config, ids), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"norm_eps": 1e-2}, {"rope_theta": 1e6}, {"layers": 3, "ffn_hidden": 100}], ids=str
)
def test_logits_of_other_settings(changes):
    config = shape(2, **changes)
    ids = tokens(config, 200)
    expected = reference_llama.logits(weights(config), config, ids)
    np.testing.assert_allclose(logits(config, ids), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("kv_heads", [8, 2], ids=["multi-head", "grouped"])
def test_logits_of_a_prompt_read_in_blocks(kv_heads):
    """Prefixes of a text as the chat reads them: in blocks, keeping the cache of what they share."""
    config = shape(kv_heads, length=1000)
    ids = tokens(config, 900)
    expected = reference_llama.logits(weights(config), config, ids)
    streamer = make_streamer(config, jax.tree.map(lambda x: x, weights(config)))
    context = begin(streamer)
    for size in (1, 40, 256, 700, 701, 300, 900):
        context = read(streamer, context, ids[:size].tolist())
        got = decoding.logits(streamer.weights, context.hidden)[0]
        np.testing.assert_allclose(got, expected[size - 1], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("change", [{"rope_theta": 1.0001e4}, {"norm_eps": 1.1e-5}], ids=str)
def test_the_tolerance_detects_small_mistakes(change):
    config = shape(2)
    ids = tokens(config, 1000)
    mistaken = reference_llama.logits(weights(config), dataclasses.replace(config, **change), ids)
    assert np.abs(logits(config, ids) - mistaken).max() > 2 * TOLERANCE
