"""Matrices in 8 and 4 bits: no weight is further off than half a step, and all that applies a model applies them."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.inference.score import response_log_probabilities
from llama2_jax.models.adapters import AdaptedMatrix, AdapterConfig, adapt, frozen_layers, init_trained, merge
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.heads import build_model
from llama2_jax.models.layer import matmul
from llama2_jax.models.llama import parameter_shardings
from llama2_jax.models.quantized import Quantization, QuantizedMatrix, quantization, quantize, quantize_layers
from llama2_jax.sharding.mesh import make_mesh
from tests.random_model import sharpened_params

MODEL = ModelConfig(
    vocab_size=64, dim=32, layers=2, heads=4, kv_heads=2, ffn_hidden=64, max_length=32, scan_layers=False
)
TOKENS = np.random.default_rng(0).integers(3, 64, (2, 12)).astype(np.int32)
INPUTS = (TOKENS, np.broadcast_to(np.arange(12, dtype=np.int32), (2, 12)), np.ones_like(TOKENS))
BOTH = [Quantization(8, 16), Quantization(4, 8)]
IDS = ["int8", "int4"]


def outputs(params, model=MODEL):
    return np.asarray(build_model(model, "language").apply({"params": params}, *INPUTS))


def restored(params):
    """The same model, its matrices as arrays."""
    return jax.tree.map(
        lambda one: one.restored(jnp.float32) if isinstance(one, QuantizedMatrix) else one,
        params,
        is_leaf=lambda one: isinstance(one, QuantizedMatrix),
    )


def slowly(matrix, bits, group):
    """The whole numbers and the scales, one weight at a time in float64, but for the scales' own rounding."""
    levels = {8: 127, 4: 7}[bits]
    values, scales = np.zeros(matrix.shape, int), np.zeros((matrix.shape[0] // group, matrix.shape[1]))
    for row, column in itertools.product(range(scales.shape[0]), range(matrix.shape[1])):
        of_group = matrix[row * group : (row + 1) * group, column].astype(np.float64)
        scale = float(jnp.asarray(np.abs(of_group).max() / levels, jnp.float32).astype(jnp.bfloat16))
        scales[row, column] = scale
        for place, weight in enumerate(of_group):
            value = round(weight / scale) if scale else 0
            values[row * group + place, column] = max(-levels, min(levels, value))
    return values, scales


@pytest.mark.parametrize("how", BOTH, ids=IDS)
def test_it_is_what_is_computed_one_weight_at_a_time(how):
    matrix = np.random.default_rng(1).normal(size=(48, 5)).astype(np.float32)
    matrix[16:32, 2] = 0.0
    values, scales = slowly(matrix, how.bits, how.group)
    found = quantize(jnp.asarray(matrix), how)
    np.testing.assert_array_equal(np.asarray(found.scales, np.float64), scales)
    wanted = values * np.repeat(scales, how.group, axis=0)
    np.testing.assert_array_equal(np.asarray(found.restored(jnp.float32), np.float64), wanted.astype(np.float32))
    assert not np.any(np.isnan(found.restored(jnp.float32)))


@pytest.mark.parametrize("how", BOTH, ids=IDS)
def test_no_weight_is_further_off_than_half_a_step(how):
    matrix = np.random.default_rng(2).standard_t(3, size=(2, 64, 7)).astype(np.float32)
    found = quantize(jnp.asarray(matrix), how)
    step = np.repeat(np.asarray(found.scales, np.float64), how.group, axis=1)
    # The scale is rounded to bfloat16, by 2^-9 of it at most; the largest weight is 127 or 7 scales.
    slack = {8: 127, 4: 7}[how.bits] * 2.0**-8
    off = np.abs(np.asarray(found.restored(jnp.float32), np.float64) - matrix)
    assert np.all(off <= step * (0.5 + slack))
    # Away from the ends of a group nothing is cut off.
    inner = np.abs(matrix) < 0.9 * step * {8: 127, 4: 7}[how.bits]
    assert inner.any() and np.all(off[inner] <= step[inner] * (0.5 + 1e-5))


def test_two_values_share_a_byte():
    values = np.asarray(list(itertools.product(range(-7, 8), repeat=2))).reshape(-1)
    # A scale of 1: a group holds a 7.
    matrix = np.stack([values, np.full_like(values, 7)], axis=-1).reshape(-1, 1).astype(np.float32)
    found = quantize(jnp.asarray(matrix), Quantization(4, 2))
    assert found.values.dtype == jnp.int8 and found.values.shape == (len(matrix) // 2, 1)
    np.testing.assert_array_equal(found.restored(jnp.float32), matrix)


def test_a_weight_takes_four_and_a_half_bits():
    found = quantize(jnp.ones((1, 4096, 128)), Quantization(4))
    assert 8 * sum(leaf.nbytes for leaf in jax.tree.leaves(found)) == 4.5 * 4096 * 128


def test_groups_are_smaller_where_they_do_not_divide():
    matrix = jnp.asarray(np.random.default_rng(4).normal(size=(48, 3)), jnp.float32)
    found, wanted = (quantize(matrix, Quantization(8, group)) for group in (32, 16))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_an_odd_number_of_inputs_and_unknown_names():
    with pytest.raises(ValueError, match="a matrix of 47 inputs cannot be stored in 4 bits, two in a byte"):
        quantize(jnp.ones((47, 2)), Quantization(4))
    with pytest.raises(ValueError, match="quantize='int3': choose one of int8, int4"):
        quantization("int3")
    with pytest.raises(ValueError, match="quantize='int3'"):
        AdapterConfig(rank=2, quantize="int3")


def test_only_the_layers_matrices_are_quantised_and_only_once():
    params = sharpened_params(MODEL)
    small = quantize_layers(params, BOTH[0])
    layers = small["trunk"]["layers"]
    assert {name for name, one in layers.items() if isinstance(one, QuantizedMatrix)} == {
        "query", "key", "value", "output", "gate", "up", "down",
    }  # fmt: skip
    assert small["head"] is params["head"] and small["trunk"]["embedding"] is params["trunk"]["embedding"]
    again = quantize_layers(small, BOTH[1])["trunk"]["layers"]
    assert all(again[name] is layers[name] for name in layers)
    assert quantize_layers(params, None) is params


@pytest.mark.parametrize("changes", [{}, {"scan_layers": True, "remat": "dots"}], ids=str)
@pytest.mark.parametrize("how", BOTH, ids=IDS)
def test_a_model_computes_with_the_restored_matrices(how, changes):
    model = dataclasses.replace(MODEL, **changes)
    small = quantize_layers(sharpened_params(MODEL), how)
    # The same products of the same float32 numbers, perhaps in another order.
    np.testing.assert_allclose(outputs(small, model), outputs(restored(small), model), atol=1e-4)


def test_more_bits_are_nearer():
    params = sharpened_params(MODEL)
    whole = outputs(params)
    off = [np.abs(outputs(quantize_layers(params, how)) - whole).mean() for how in BOTH]
    assert 0 < 5 * off[0] < off[1] < np.abs(whole).mean()


@pytest.mark.parametrize("how", BOTH, ids=IDS)
def test_generation_and_scores_are_those_of_the_restored_model(how):
    small = quantize_layers(sharpened_params(MODEL), how)
    prompts, sampling = [[1, 5, 9, 30], [1, 40]], Sampling(1.0, 1.0, 12)
    samples = [generate(MODEL, one, prompts, sampling, jax.random.key(4), 2) for one in (small, restored(small))]
    for one, other in zip(*samples, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        np.testing.assert_allclose(one.sampling_logps, other.sampling_logps, atol=2e-4)
    answers = [sample.tokens for sample in samples[0]]
    for sample, scored in zip(samples[0], response_log_probabilities(MODEL, small, prompts, answers, 1.0), strict=True):
        np.testing.assert_allclose(sample.sampling_logps, scored, atol=2e-4)


def test_on_a_mesh_it_answers_as_on_one_device():
    """The matrices split over fsdp and tensor, and consolidated for generation."""
    mesh, params = make_mesh(data=2, fsdp=2, tensor=2), sharpened_params(MODEL)
    prompts, sampling = [[1, 5, 9, 30], [1, 40], [1, 7], [1, 8, 9]], Sampling(1.0, 1.0, 10)
    split = jax.device_put(params, parameter_shardings(build_model(MODEL, "language"), mesh))
    samples = [
        generate(MODEL, quantize_layers(one, Quantization(4, 8)), prompts, sampling, jax.random.key(4), 2)
        for one in (params, split)
    ]
    for one, other in zip(*samples, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        np.testing.assert_allclose(one.sampling_logps, other.sampling_logps, atol=2e-4)


@pytest.mark.parametrize("scan", [False, True])
def test_adapters_beside_it_have_the_gradients_of_those_beside_the_restored_one(scan):
    """QLoRA: nothing flows into the few bits, everything through them."""
    model = dataclasses.replace(MODEL, scan_layers=scan, remat="dots" if scan else "none")
    adapters = AdapterConfig(rank=4, alpha=8.0, targets=("query", "down"), quantize="int4")
    small = frozen_layers(sharpened_params(MODEL), adapters)
    fresh = init_trained(MODEL, "language", adapters, jax.random.key(1))
    trained = jax.tree.map(lambda leaf: leaf + 0.1, fresh)

    def loss(trained, base):
        return jnp.mean(build_model(model, "language").apply({"params": adapt(base, trained, adapters)}, *INPUTS) ** 2)

    found, wanted = (jax.grad(loss)(trained, base) for base in (small, restored(small)))
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(wanted))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5), found, wanted)


def test_merged_it_is_an_array_again():
    adapters = AdapterConfig(rank=2, alpha=4.0, targets=("query",), quantize="int4")
    small = frozen_layers(sharpened_params(MODEL), adapters)
    trained = jax.tree.map(lambda leaf: leaf + 0.1, init_trained(MODEL, "language", adapters, jax.random.key(1)))
    adapted = adapt(small, trained, adapters)
    query = adapted["trunk"]["layers"]["query"]
    assert isinstance(query, AdaptedMatrix) and isinstance(query.base, QuantizedMatrix)
    plain = merge(adapted)
    assert not any(isinstance(leaf, QuantizedMatrix) for leaf in plain["trunk"]["layers"].values())
    np.testing.assert_allclose(outputs(plain), outputs(adapted), atol=2e-4)
    x = jnp.asarray(np.random.default_rng(3).normal(size=(3, 32)), jnp.float32)
    one = jax.tree.map(lambda leaf: leaf[0], query)
    np.testing.assert_allclose(matmul(x[None], one)[0], x @ plain["trunk"]["layers"]["query"][0], atol=1e-4)
