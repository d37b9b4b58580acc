"""Residual dropout: rising by layer, of what layers add alone, the same for the same key, and absent by default."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.models.adapters import AdapterConfig, adapt, init_trained
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.heads import build_model, init_model
from llama2_jax.models.residual_dropout import ATTENTION, ENTRY, MLP, ResidualDropout, drop, with_residual_dropout
from llama2_jax.sharding.mesh import make_mesh
from tests.random_model import sharpened_params

MODEL = ModelConfig(
    vocab_size=64, dim=32, layers=3, heads=4, kv_heads=2, ffn_hidden=48, max_length=32, scan_layers=False
)
TOKENS = np.random.default_rng(0).integers(3, 64, (8, 12)).astype(np.int32)
INPUTS = (TOKENS, np.broadcast_to(np.arange(12, dtype=np.int32), (8, 12)), np.ones_like(TOKENS))
KEY = jax.random.key(3)


def outputs(params, model=MODEL, mesh=None):
    return build_model(model, "language", mesh).apply({"params": params}, *INPUTS)


@pytest.mark.parametrize(("layers", "rates"), [(5, [0, 0.075, 0.15, 0.225, 0.3]), (2, [0, 0.3]), (1, [0])])
def test_the_rate_rises_in_a_line_from_0_to_the_last_layer_s(layers, rates):
    """p_d(l) = 0.3 l / (L - 1)."""
    params = init_model(dataclasses.replace(MODEL, layers=layers), "language", KEY)
    dropout = with_residual_dropout(params, 0.3, KEY)["trunk"]["layers"][ENTRY]
    np.testing.assert_allclose(dropout.rate, rates, atol=1e-7)
    assert len({tuple(np.asarray(jax.random.key_data(key))) for key in dropout.key}) == layers
    assert ENTRY not in params["trunk"]["layers"]


def test_a_part_is_dropped_and_the_rest_scaled_up():
    added = jnp.ones((4, 100, 32))
    dropout = ResidualDropout(jnp.asarray(0.25), KEY)
    found = {place: np.asarray(drop(added, dropout, place)) for place in (ATTENTION, MLP)}
    for dropped in found.values():
        assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
        # 12,800 draws: the share is within 4 standard errors.
        assert np.mean(dropped == 0) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 12800) ** 0.5)
    assert not np.array_equal(found[ATTENTION], found[MLP])
    assert drop(added, None, MLP) is added
    np.testing.assert_array_equal(drop(added, ResidualDropout(jnp.asarray(0.0), KEY), MLP), added)


def test_the_dtype_stays():
    added = jnp.ones((1, 4, 8), jnp.bfloat16)
    assert drop(added, ResidualDropout(jnp.asarray(0.5), KEY), MLP).dtype == jnp.bfloat16


def test_it_is_the_key_s_and_changes_nothing_at_rate_0():
    params = sharpened_params(MODEL)
    plain = outputs(params)
    np.testing.assert_array_equal(outputs(with_residual_dropout(params, 0.0, KEY)), plain)
    one, same, other = (outputs(with_residual_dropout(params, 0.3, jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - plain).max() > 0.01 and np.abs(one - other).max() > 0.01


@pytest.mark.parametrize(
    "changes", [{"scan_layers": True}, {"remat": "dots"}, {"scan_layers": True, "remat": "full"}], ids=str
)
def test_scanned_and_recomputed_layers_drop_the_same(changes):
    params = with_residual_dropout(sharpened_params(MODEL), 0.3, KEY)
    model = dataclasses.replace(MODEL, **changes)
    # The same float32 numbers, perhaps fused in another order.
    np.testing.assert_allclose(outputs(params, model), outputs(params), atol=2e-4)

    def loss(trained, model):
        return jnp.square(outputs(with_residual_dropout(trained, 0.3, KEY), model)).mean()

    gradients = [jax.grad(loss)(sharpened_params(MODEL), one) for one in (MODEL, model)]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3), *gradients)


def test_a_mesh_drops_the_same():
    params = with_residual_dropout(sharpened_params(MODEL), 0.3, KEY)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        sharded = jax.jit(lambda params: outputs(params, MODEL, mesh))(params)
    np.testing.assert_allclose(sharded, outputs(params), atol=2e-4)


def test_rows_that_are_added_for_a_mesh_change_nothing_in_the_others():
    added, dropout = jnp.ones((8, 5, 16)), ResidualDropout(jnp.asarray(0.3), KEY)
    np.testing.assert_array_equal(drop(added, dropout, MLP)[:6], drop(added[:6], dropout, MLP))


def test_adapted_models_have_it_too():
    adapters, base = AdapterConfig(rank=2), sharpened_params(MODEL)
    adapted = adapt(base, init_trained(MODEL, "language", adapters, KEY), adapters)
    # Fresh adapters change nothing.
    np.testing.assert_array_equal(
        outputs(with_residual_dropout(adapted, 0.3, KEY)), outputs(with_residual_dropout(base, 0.3, KEY))
    )
