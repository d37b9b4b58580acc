import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.models import decoding
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.kv_cache import empty_cache, take_rows
from llama2_jax.models.llama import LanguageModel
from tests.random_model import sharpened_params

CONFIG = ModelConfig(
    vocab_size=61, dim=48, layers=2, heads=6, kv_heads=2, ffn_hidden=80, max_length=64, scan_layers=False
)
PROMPTS = (5, 12, 1, 9)
NEW = 6

decoding_weights = jax.jit(decoding.decoding_weights, static_argnames="config")
prefill = jax.jit(decoding.prefill, static_argnames=("slots", "config"))
decode = jax.jit(decoding.decode, static_argnames="config")


@pytest.fixture(scope="module")
def params():
    return sharpened_params(CONFIG)


def sequences():
    rng = np.random.default_rng(0)
    return [rng.integers(0, CONFIG.vocab_size, size + NEW) for size in PROMPTS]


def prompts_in_rows(length):
    tokens, positions = np.zeros((4, length), np.int32), np.full((4, length), -1, np.int32)
    for row, (size, sequence) in enumerate(zip(PROMPTS, sequences(), strict=True)):
        tokens[row, :size], positions[row, :size] = sequence[:size], np.arange(size)
    return tokens, positions


def full_forward(params, sequence, config):
    tokens, positions, segment_ids = np.zeros((3, 1, 32), np.int32)  # one shape for all: compiled once
    tokens[0, : len(sequence)], segment_ids[0, : len(sequence)] = sequence, 1
    positions[0] = np.arange(32)
    return np.asarray(forward(params, tokens, positions, segment_ids, config))[0, : len(sequence)]


@functools.partial(jax.jit, static_argnames="config")
def forward(params, tokens, positions, segment_ids, config):
    return LanguageModel(config).apply({"params": params}, tokens, positions, segment_ids)


# Float32 sums in another order; bfloat16 keeps 8 bits, on logits that spread by about 5.
ROUNDED = pytest.param("bfloat16", 0.3, marks=pytest.mark.slow)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ROUNDED])
def test_every_step_equals_the_full_forward_pass(params, dtype, tolerance):
    config = dataclasses.replace(CONFIG, compute_dtype=dtype)
    expected = [full_forward(params, sequence, config) for sequence in sequences()]
    weights = decoding_weights(params, config)
    hidden, cache = prefill(weights, *prompts_in_rows(16), 16 + NEW, config)
    prompt_logits = decoding.logits(weights, hidden)
    for row, size in enumerate(PROMPTS):
        np.testing.assert_allclose(prompt_logits[row, :size], expected[row][:size], atol=tolerance)
    for step in range(NEW):
        tokens = np.array([[sequence[size + step]] for size, sequence in zip(PROMPTS, sequences(), strict=True)])
        positions = np.array([[size + step] for size in PROMPTS])
        hidden, cache = decode(weights, tokens, positions, cache, config)
        logits = decoding.logits(weights, hidden)
        for row, size in enumerate(PROMPTS):
            np.testing.assert_allclose(logits[row, 0], expected[row][size + step], atol=tolerance)
    assert cache.index == 16 + NEW


def test_the_module_decodes_a_prompt_and_then_single_tokens_from_an_empty_cache(params):
    model = LanguageModel(CONFIG)
    apply = jax.jit(functools.partial(model.apply, {"params": params}, method="decode"))
    logits, cache = apply(*prompts_in_rows(12), empty_cache(CONFIG, 4, 14))
    expected = [full_forward(params, sequence, CONFIG) for sequence in sequences()]
    for row, size in enumerate(PROMPTS):
        np.testing.assert_allclose(logits[row, :size], expected[row][:size], atol=2e-5)  # as above
    tokens = np.array([[sequence[size]] for size, sequence in zip(PROMPTS, sequences(), strict=True)])
    logits, cache = apply(tokens, np.array(PROMPTS)[:, None], cache)
    for row, size in enumerate(PROMPTS):
        np.testing.assert_allclose(logits[row, 0], expected[row][size], atol=2e-5)
    assert logits.dtype == jnp.float32 and cache.index == 13


def test_prefill_fills_the_cache_as_decoding_the_prompt_does(params):
    weights = decoding_weights(params, CONFIG)
    tokens, positions = prompts_in_rows(12)
    _, filled = prefill(weights, tokens, positions, 15, CONFIG)
    _, decoded = decode(weights, tokens, positions, empty_cache(CONFIG, 4, 15), CONFIG)
    np.testing.assert_array_equal(filled.positions, decoded.positions)
    used = np.asarray(filled.positions >= 0)[:, None, None, :]
    for got, expected in zip(filled.keys, decoded.keys, strict=True):
        np.testing.assert_allclose(got * used, expected * used, atol=1e-5)  # sums in another order


def test_samples_of_one_prompt_continue_one_prefill(params):
    weights = decoding_weights(params, CONFIG)
    _, cache = prefill(weights, *prompts_in_rows(12), 13, CONFIG)
    tokens = np.arange(8)[:, None]
    positions = np.repeat(PROMPTS, 2)[:, None]
    hidden, _ = decode(weights, tokens, positions, take_rows(cache, np.repeat(np.arange(4), 2)), CONFIG)
    logits = decoding.logits(weights, hidden)
    for row in range(8):
        size = PROMPTS[row // 2]
        sequence = np.concatenate([sequences()[row // 2][:size], tokens[row]])
        np.testing.assert_allclose(logits[row, 0], full_forward(params, sequence, CONFIG)[-1], atol=2e-5)
