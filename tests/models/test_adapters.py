"""Low-rank adapters: W + (alpha / rank) A B, whatever applies a model, and never more than a small part of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.parts.training import ADAPTERS
from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.models.adapters import (
    TARGETS,
    AdaptedMatrix,
    AdapterConfig,
    abstract_trained,
    adapt,
    init_trained,
    merge,
)
from llama2_jax.models.attention_maps import attention_maps
from llama2_jax.models.config import PRESETS, ModelConfig, parameter_count
from llama2_jax.models.heads import build_model, init_model
from llama2_jax.models.layer import matmul
from tests.random_model import sharpened_params

MODEL = ModelConfig(
    vocab_size=64, dim=32, layers=2, heads=4, kv_heads=2, ffn_hidden=48, max_length=32, scan_layers=False
)
ADAPTERS_OF_FOUR = AdapterConfig(rank=4, alpha=8.0)
TOKENS = np.random.default_rng(0).integers(3, 64, (2, 12)).astype(np.int32)
INPUTS = (TOKENS, np.broadcast_to(np.arange(12, dtype=np.int32), (2, 12)), np.ones_like(TOKENS))


def trained(head="language", adapters=ADAPTERS_OF_FOUR, scale=0.2, model=MODEL):
    """Adapters that change a model much, with no factor at zero."""
    fresh = init_trained(model, head, adapters, jax.random.key(1))
    keys = iter(jax.random.split(jax.random.key(2), 32))
    return jax.tree.map(lambda x: x + scale * jax.random.normal(next(keys), x.shape), fresh)


def outputs(params, model=MODEL, head="language"):
    return build_model(model, head).apply({"params": params}, *INPUTS)


def test_a_product_is_that_of_the_sum():
    rng = np.random.default_rng(1)
    x, base, a, b = (rng.normal(size=shape) for shape in ((5, 7), (7, 6), (7, 3), (3, 6)))
    arrays = [jnp.asarray(one, jnp.float32) for one in (x, base, a, b)]
    found = matmul(arrays[0], AdaptedMatrix(*arrays[1:], scale=2.5))
    # Float32 sums of a dozen products.
    np.testing.assert_allclose(found, x @ (base + 2.5 * a @ b), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"scan_layers": True, "remat": "dots"}, {"compute_dtype": "bfloat16"}], ids=str
)
@pytest.mark.parametrize("head", ["language", "scalar"])
def test_fresh_adapters_change_nothing(head, changes):
    model = dataclasses.replace(MODEL, **changes)
    base = init_model(model, head, jax.random.key(0))
    fresh = init_trained(model, head, ADAPTERS_OF_FOUR, jax.random.key(1))
    fresh |= {"head": base["head"]} if head == "scalar" else {}
    np.testing.assert_array_equal(
        outputs(adapt(base, fresh, ADAPTERS_OF_FOUR), model, head), outputs(base, model, head)
    )


@pytest.mark.parametrize("changes", [{}, {"scan_layers": True, "remat": "dots"}], ids=str)
@pytest.mark.parametrize("targets", [TARGETS, ("query", "value"), ("down",)], ids=str)
def test_an_adapted_model_is_the_merged_one(targets, changes):
    model, adapters = dataclasses.replace(MODEL, **changes), AdapterConfig(rank=4, alpha=8.0, targets=targets)
    base = sharpened_params(MODEL)
    adapted = adapt(base, trained(adapters=adapters), adapters)
    plain = merge(adapted)
    assert not any(isinstance(one, AdaptedMatrix) for one in plain["trunk"]["layers"].values())
    assert np.abs(outputs(plain, model) - outputs(base, model)).max() > 0.1
    # The same float32 numbers in another order.
    np.testing.assert_allclose(outputs(adapted, model), outputs(plain, model), atol=2e-4)


def test_a_scalar_model_has_the_head_that_was_trained():
    base, own = init_model(MODEL, "scalar", jax.random.key(0)), trained("scalar")
    plain = merge(adapt({"trunk": base["trunk"]}, own, ADAPTERS_OF_FOUR))
    np.testing.assert_array_equal(plain["head"]["kernel"], own["head"]["kernel"])
    np.testing.assert_allclose(outputs(adapt(base, own, ADAPTERS_OF_FOUR), head="scalar"),
                               outputs(plain, head="scalar"), atol=2e-4)  # fmt: skip


def test_generation_with_adapters_beside_the_base_is_that_of_the_merged_model():
    adapted = adapt(sharpened_params(MODEL), trained(), ADAPTERS_OF_FOUR)
    prompts, sampling = [[1, 5, 9, 30], [1, 40]], Sampling(1.0, 1.0, 12)
    beside, plain = (generate(MODEL, params, prompts, sampling, jax.random.key(4), 2) for params in
                     (adapted, merge(adapted)))  # fmt: skip
    for one, other in zip(beside, plain, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        np.testing.assert_allclose(one.sampling_logps, other.sampling_logps, atol=2e-4)


def test_attention_maps_are_those_of_the_merged_model():
    adapted = adapt(sharpened_params(MODEL), trained(), ADAPTERS_OF_FOUR)
    maps = [attention_maps(params, *map(jnp.asarray, INPUTS), MODEL) for params in (adapted, merge(adapted))]
    np.testing.assert_allclose(*maps, atol=1e-4)


def test_merging_sums_in_float32_and_keeps_the_dtype():
    base = jnp.ones((1, 2, 2), jnp.bfloat16)
    matrix = AdaptedMatrix(base, jnp.full((1, 2, 1), 0.5), jnp.full((1, 1, 2), 0.5), scale=2.0)
    plain = merge({"weight": matrix})["weight"]
    assert plain.dtype == jnp.bfloat16
    np.testing.assert_array_equal(plain.astype(jnp.float32), np.full((1, 2, 2), 1.5))


def test_dropout_drops_its_part_of_the_adapters_inputs_alone():
    adapters = dataclasses.replace(ADAPTERS_OF_FOUR, dropout=0.25)
    own = trained(adapters=adapters)
    base = sharpened_params(MODEL)
    query = adapt(base, own, adapters, jax.random.key(7))["trunk"]["layers"]["query"]
    one_layer = jax.tree.map(lambda array: array[0], query)
    x = jnp.ones((400, 32))
    dropped = np.asarray(one_layer.adapter_inputs(x))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    # 12,800 draws: the share is within 4 standard errors.
    assert np.mean(dropped == 0) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 12800) ** 0.5)
    same, other, none = (outputs(adapt(base, own, adapters, key)) for key in
                         (jax.random.key(7), jax.random.key(8), None))  # fmt: skip
    np.testing.assert_array_equal(same, outputs(adapt(base, own, adapters, jax.random.key(7))))
    assert np.abs(same - other).max() > 0.01 and np.abs(same - none).max() > 0.01


@pytest.mark.parametrize("scale", ["7b", "13b", "34b", "70b"])
@pytest.mark.parametrize("rank", [8, 16])
def test_less_than_a_hundredth_of_the_papers_models_is_trained(scale, rank):
    model = PRESETS[scale]
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract_trained(model, "language", AdapterConfig(rank=rank))))
    assert 0 < count < 0.01 * parameter_count(model)


def test_the_number_of_7bs_adapters_is_known():
    """Rank 8 on all matrices: a layer has four of 4,096 x 4,096 and three of 4,096 x 11,008."""
    count = sum(
        leaf.size for leaf in jax.tree.leaves(abstract_trained(PRESETS["7b"], "language", AdapterConfig(rank=8)))
    )
    assert count == 32 * 8 * (4 * (4096 + 4096) + 3 * (4096 + 11008)) == 19_988_480


def test_the_experiments_name_all_matrices():
    assert ADAPTERS["targets"] == TARGETS and ADAPTERS["rank"] == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "adapters.rank is 0; it must be a whole number of at least 1"),
        ({"rank": -4}, "adapters.rank is -4"),
        ({"rank": 2.5}, "adapters.rank is 2.5"),
        ({"rank": 4, "alpha": 0}, "adapters.alpha is 0; it must be a number above 0"),
        ({"rank": 4, "dropout": 1.0}, "adapters.dropout is 1.0; it must be a number from 0 to below 1"),
        ({"rank": 4, "targets": ("q_proj",)}, "one or more of query, key, value, output, gate, up, down"),
        ({"rank": 4, "targets": ()}, "adapters.targets is ()"),
        ({"rank": 4, "targets": ("query", "query")}, "each once"),
    ],
    ids=str,
)
def test_what_makes_no_adapter_is_refused(fields, message):
    with pytest.raises(ValueError) as error:
        AdapterConfig(**fields)
    assert message in str(error.value)
