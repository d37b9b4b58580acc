import dataclasses
import functools

import jax
import numpy as np
import pytest

from llama2_jax.inference import score as score_file
from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.inference.score import response_log_probabilities, rewards, values
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import (
    LanguageModel,
    ScalarModel,
    init_language_model,
    init_scalar_model,
    parameter_shardings,
)
from llama2_jax.sharding.mesh import make_mesh

CONFIG = ModelConfig(
    vocab_size=40, dim=32, layers=2, heads=4, kv_heads=2, ffn_hidden=64, max_length=48, scan_layers=False,
    generation_rows=8,
)  # fmt: skip
# Float32 sums in another order, against a log-softmax in float64.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def language_params():
    return jax.tree.map(lambda x: 4 * x, jax.jit(init_language_model, static_argnums=0)(CONFIG, jax.random.key(0)))


@pytest.fixture(scope="module")
def scalar_params():
    fresh = jax.jit(init_scalar_model, static_argnums=0)(CONFIG, jax.random.key(1))
    return fresh | {"trunk": jax.tree.map(lambda x: 2 * x, fresh["trunk"])}


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    sizes = [(5, 9), (1, 1), (30, 18), (12, 3), (7, 20), (2, 11), (3, 4)]
    ids = [(rng.integers(0, 40, prompt), rng.integers(0, 40, response)) for prompt, response in sizes]
    return [prompt.tolist() for prompt, _ in ids], [response.astype(np.int32) for _, response in ids]


def unpacked(module, params, sequence):
    """The module's output for a row with a single sequence, in float64."""
    tokens, positions, segment_ids = np.zeros((3, 1, CONFIG.max_length), np.int32)
    tokens[0, : len(sequence)], segment_ids[0, : len(sequence)] = sequence, 1
    positions[0] = np.arange(CONFIG.max_length)
    return np.asarray(apply(module, params, tokens, positions, segment_ids)[0, : len(sequence)], np.float64)


@functools.partial(jax.jit, static_argnums=0)
def apply(module, params, tokens, positions, segment_ids):
    return module.apply({"params": params}, tokens, positions, segment_ids)


@pytest.mark.parametrize(("temperature", "scoring_tokens"), [(1.0, 8192), (0.7, 48)])
def test_log_probabilities_equal_those_of_unpacked_rows(language_params, pairs, temperature, scoring_tokens):
    config = dataclasses.replace(CONFIG, scoring_tokens=scoring_tokens)
    got = response_log_probabilities(config, language_params, *pairs, temperature)
    for prompt, response, logps in zip(*pairs, got, strict=True):
        logits = unpacked(LanguageModel(CONFIG), language_params, [*prompt, *response]) / temperature
        log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        expected = [log_p[len(prompt) - 1 + step, token] for step, token in enumerate(response)]
        np.testing.assert_allclose(logps, expected, atol=TOLERANCE)
        assert logps.dtype == np.float32


def test_decoding_and_scoring_give_the_same_log_probabilities(language_params, pairs):
    prompts = [prompt[:20] for prompt in pairs[0]]
    samples = generate(CONFIG, language_params, prompts, Sampling(0.8, 1.0, 12), jax.random.key(3), 2)
    scored = response_log_probabilities(CONFIG, language_params, prompts, [s.tokens for s in samples], 0.8)
    for sample, logps in zip(samples, scored, strict=True):
        np.testing.assert_allclose(sample.sampling_logps, logps, atol=TOLERANCE)


def test_rewards_are_read_at_the_last_token(scalar_params, pairs):
    sequences = [np.concatenate(pair) for pair in zip(*pairs, strict=True)]
    got = rewards(CONFIG, scalar_params, sequences)
    expected = [unpacked(ScalarModel(CONFIG), scalar_params, sequence)[-1] for sequence in sequences]
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)
    assert got.dtype == np.float32 and got.shape == (len(sequences),)


def test_values_are_read_before_each_response_token(scalar_params, pairs):
    for prompt, response, got in zip(*pairs, values(CONFIG, scalar_params, *pairs), strict=True):
        expected = unpacked(ScalarModel(CONFIG), scalar_params, [*prompt, *response])[len(prompt) - 1 : -1]
        np.testing.assert_allclose(got, expected, atol=TOLERANCE)
        assert len(got) == len(response)


@pytest.mark.slow
def test_the_same_on_a_mesh(language_params, scalar_params, pairs):
    mesh = make_mesh(1, 4, 2)
    split = jax.device_put(language_params, parameter_shardings(LanguageModel(CONFIG), mesh))
    for got, expected in zip(
        response_log_probabilities(CONFIG, split, *pairs, 1.0),
        response_log_probabilities(CONFIG, language_params, *pairs, 1.0),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, atol=TOLERANCE)
    split = jax.device_put(scalar_params, parameter_shardings(ScalarModel(CONFIG), mesh))
    np.testing.assert_allclose(
        rewards(CONFIG, split, pairs[1]), rewards(CONFIG, scalar_params, pairs[1]), atol=TOLERANCE
    )


def test_one_program_serves_any_number_of_sequences(scalar_params, pairs):
    config = dataclasses.replace(CONFIG, norm_eps=2e-5)  # a config that no other test has compiled
    before = score_file.token_scores._cache_size()
    rewards(config, scalar_params, pairs[1])
    rewards(config, scalar_params, pairs[1] * 40)
    values(config, scalar_params, *pairs)
    assert score_file.token_scores._cache_size() == before + 1


def test_sequences_are_in_rows_of_the_next_length_whatever_else_there_is(scalar_params):
    config = dataclasses.replace(CONFIG, max_length=300, norm_eps=3e-5)
    rng = np.random.default_rng(1)
    sequences = [rng.integers(0, 40, size) for size in (5, 300, 256, 257, 40)]
    before = score_file.token_scores._cache_size()
    got = rewards(config, scalar_params, sequences)
    assert score_file.token_scores._cache_size() == before + 2, "rows of 256 and of 300 tokens"
    for index, sequence in enumerate(sequences):
        np.testing.assert_allclose(rewards(config, scalar_params, [sequence]), got[index : index + 1], atol=TOLERANCE)
        tokens = np.asarray(sequence, np.int32)[None]
        alone = apply(ScalarModel(config), scalar_params, tokens, np.arange(len(sequence))[None], np.ones_like(tokens))
        np.testing.assert_allclose(got[index], alone[0, -1], atol=TOLERANCE)


def test_empty_inputs_give_empty_outputs(scalar_params, language_params):
    assert rewards(CONFIG, scalar_params, []).shape == (0,)
    assert values(CONFIG, scalar_params, [], []) == []
    assert response_log_probabilities(CONFIG, language_params, [], [], 1.0) == []


def test_invalid_pairs_are_named(scalar_params):
    with pytest.raises(ValueError, match="pair 1 has 2 prompt tokens and 0 response tokens"):
        values(CONFIG, scalar_params, [[1], [1, 2]], [[1], []])
    with pytest.raises(ValueError, match="2 prompts and 1 responses"):
        values(CONFIG, scalar_params, [[1], [1, 2]], [[1]])
    with pytest.raises(ValueError, match="49 tokens"):
        rewards(CONFIG, scalar_params, [[1], [1] * 49])
