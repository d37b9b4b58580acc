import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import (
    LanguageModel,
    ScalarModel,
    init_language_model,
    init_scalar_model,
    scalar_params_from,
)
from tests.models import reference_llama
from tests.random_model import sharpened_params

CONFIG = ModelConfig(
    vocab_size=61, dim=48, layers=3, heads=6, kv_heads=2, ffn_hidden=80, max_length=96, scan_layers=False
)
SIZES = (17, 1, 30, 44)

initialise = jax.jit(init_language_model, static_argnums=0)


@pytest.fixture(scope="module")
def params():
    """Larger than an initialisation, so that every part of the network matters to the result."""
    return sharpened_params(CONFIG)


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    return [rng.integers(0, CONFIG.vocab_size, size) for size in SIZES]


def packed(sequences, length=100):
    """All sequences in one row, with padding between and after, and a second row of padding alone."""
    tokens, positions, segment_ids = np.zeros((3, 2, length), np.int32)
    spans, start = [], 0
    for number, sequence in enumerate(sequences, 1):
        span = slice(start, start + len(sequence))
        tokens[0, span], positions[0, span], segment_ids[0, span] = sequence, np.arange(len(sequence)), number
        spans.append(span)
        start = span.stop + 2
    return (tokens, positions, segment_ids), spans


def unpacked(sequence, length=44):
    """One padded row with a single sequence: one shape for all, compiled once."""
    tokens, positions, segment_ids = np.zeros((3, 1, length), np.int32)
    tokens[0, : len(sequence)], positions[0, : len(sequence)], segment_ids[0, : len(sequence)] = (
        sequence,
        np.arange(len(sequence)),
        1,
    )
    return tokens, positions, segment_ids


@functools.partial(jax.jit, static_argnums=0)
def apply(config, params, tokens, positions, segment_ids):
    return LanguageModel(config).apply({"params": params}, tokens, positions, segment_ids)


def forward(params, batch, **changes):
    return apply(dataclasses.replace(CONFIG, **changes), params, *batch)


def test_logits_equal_the_reference_in_float64(params, sequences):
    for sequence in sequences:
        expected = reference_llama.logits(params, CONFIG, sequence)
        # Float32 through three layers, logits of up to about 10.
        np.testing.assert_allclose(forward(params, unpacked(sequence))[0, : len(sequence)], expected, atol=1e-4)


def test_packed_equals_unpacked(params, sequences):
    batch, spans = packed(sequences)
    logits = forward(params, batch)
    assert np.isfinite(logits).all()
    for sequence, span in zip(sequences, spans, strict=True):
        expected = reference_llama.logits(params, CONFIG, sequence)
        np.testing.assert_allclose(logits[0, span], expected, atol=1e-4)  # as above


@pytest.mark.slow
def test_gradients_of_packed_equal_those_of_unpacked(params, sequences):
    batch, spans = packed(sequences)
    model = LanguageModel(CONFIG)
    weight = jax.random.normal(jax.random.key(2), (max(SIZES), CONFIG.vocab_size))

    def packed_loss(params):
        logits = model.apply({"params": params}, *batch)[0]
        return sum(jnp.sum(logits[span] * weight[: span.stop - span.start]) for span in spans)

    @jax.jit
    @jax.grad
    def unpacked_gradient(params, batch):
        logits = model.apply({"params": params}, *batch)[0]
        return jnp.sum(jnp.where(batch[2][0, :, None] > 0, logits * weight, 0.0))

    packed_gradient = jax.jit(jax.grad(packed_loss))(params)
    summed = jax.tree.map(
        lambda *parts: sum(parts), *(unpacked_gradient(params, unpacked(sequence)) for sequence in sequences)
    )
    for got, expected in zip(jax.tree.leaves(packed_gradient), jax.tree.leaves(summed), strict=True):
        # Relative to the largest entry. One ulp of noise on the weights alone moves these gradients by 9e-6, and two
        # evaluations in float32 are compared; one token that leaks across a segment moves them by 0.2.
        np.testing.assert_allclose(got, expected, atol=2e-5 * float(jnp.abs(expected).max()))


def test_no_token_sees_what_follows_it(params, sequences):
    batch = unpacked(sequences[3])
    changed = (batch[0].copy(), *batch[1:])
    changed[0][0, 20:] = (changed[0][0, 20:] + 1) % CONFIG.vocab_size
    before, after = forward(params, batch), forward(params, changed)
    np.testing.assert_array_equal(before[0, :20], after[0, :20])
    assert (np.abs(before[0, 20:] - after[0, 20:]).max(axis=-1) > 1e-2).all()


@pytest.mark.slow
def test_scanning_changes_nothing(params, sequences):
    batch, _ = packed(sequences)

    def value_and_gradients(**changes):
        model = LanguageModel(dataclasses.replace(CONFIG, **changes))

        def loss(params):
            logits = model.apply({"params": params}, *batch)
            return jnp.mean(jnp.sin(logits)), logits

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    (_, expected), expected_gradients = value_and_gradients()
    (_, logits), gradients = value_and_gradients(scan_layers=True)
    np.testing.assert_allclose(logits, expected, atol=2e-5)  # fused in another order
    for got, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5 * float(jnp.abs(wanted).max()))


def test_one_parameter_layout_for_scanned_and_unrolled_layers():
    key = jax.random.key(3)
    unrolled = initialise(CONFIG, key)
    scanned = initialise(dataclasses.replace(CONFIG, scan_layers=True), key)
    assert jax.tree.structure(unrolled) == jax.tree.structure(scanned)
    jax.tree.map(np.testing.assert_array_equal, unrolled, scanned)
    assert unrolled["trunk"]["layers"]["key"].shape == (3, 48, 16)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(unrolled))


def test_bfloat16_stays_close_and_gives_float32_logits(sequences):
    params, batch = initialise(CONFIG, jax.random.key(0)), unpacked(sequences[3])
    logits = forward(params, batch, compute_dtype="bfloat16")
    assert logits.dtype == jnp.float32
    expected = reference_llama.logits(params, CONFIG, sequences[3])
    # 8 bits of mantissa, 0.4 % a rounding, some ten roundings a layer: sqrt(30) times 0.4 % of the logits' spread.
    assert np.sqrt(np.mean((logits[0] - expected) ** 2)) < 0.022 * expected.std()


@pytest.mark.slow
def test_every_parameter_receives_a_gradient(params, sequences):
    batch, _ = packed(sequences)

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.mean(jnp.square(LanguageModel(CONFIG).apply({"params": params}, *batch)))

    gradients = gradient(params)
    for name, leaf in gradients["trunk"]["layers"].items():
        assert (jnp.abs(leaf).reshape(CONFIG.layers, -1).max(axis=1) > 0).all(), name
    assert jnp.abs(gradients["trunk"]["embedding"]).max() > 0
    assert jnp.abs(gradients["head"]["kernel"]).max() > 0


@pytest.mark.slow
def test_initialisation_has_the_documented_deviations():
    config = dataclasses.replace(CONFIG, dim=192, vocab_size=500, ffn_hidden=256)
    fresh = initialise(config, jax.random.key(4))
    layers = fresh["trunk"]["layers"]
    # The standard deviation of at least 30,000 numbers is accurate to 0.5 %.
    np.testing.assert_allclose(jnp.std(layers["gate"]), 0.02, rtol=0.02)
    np.testing.assert_allclose(jnp.std(layers["down"]), 0.02 / np.sqrt(2 * 3), rtol=0.02)
    np.testing.assert_allclose(jnp.std(layers["output"]), 0.02 / np.sqrt(2 * 3), rtol=0.02)
    assert (layers["ffn_norm"] == 1).all() and (fresh["trunk"]["final_norm"] == 1).all()
    assert not jnp.array_equal(layers["query"][0], layers["query"][1])
    np.testing.assert_allclose(jnp.std(fresh["trunk"]["embedding"]), 0.02, rtol=0.02)
    # 192 numbers: accurate to 5 %; the tolerance is three times that.
    head = init_scalar_model(config, jax.random.key(5))["head"]["kernel"]
    np.testing.assert_allclose(jnp.std(head), 193**-0.5, rtol=0.15)


def test_scalar_model_scores_every_token_with_the_same_trunk(params, sequences):
    scalar = scalar_params_from(params, CONFIG, jax.random.key(6))
    assert scalar["head"]["kernel"].shape == (CONFIG.dim, 1)
    batch, spans = packed(sequences)
    scores = jax.jit(ScalarModel(CONFIG).apply)({"params": scalar}, *batch)
    assert scores.dtype == jnp.float32
    for sequence, span in zip(sequences, spans, strict=True):
        expected = reference_llama.logits(scalar, CONFIG, sequence)[:, 0]
        np.testing.assert_allclose(scores[0, span], expected, atol=1e-4)  # as for logits


def test_a_scalar_model_does_not_share_memory_with_the_language_model(params):
    scalar = scalar_params_from(params, CONFIG, jax.random.key(6))
    same = jax.tree.map(lambda a, b: a is b, scalar["trunk"], params["trunk"])
    assert not any(jax.tree.leaves(same)), "a donated training state would delete the language model's parameters"
