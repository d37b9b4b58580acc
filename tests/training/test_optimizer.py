"""AdamW against NumPy in float64, and what it decays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.models.config import PRESETS
from llama2_jax.models.llama import init_language_model
from llama2_jax.training.optimizer import OptimizerConfig, decays, make_optimizer


def reference(params, gradients, rate, config):
    """AdamW with clipping, written out (Loshchilov and Hutter 2019), decay on `matrix` and not on `norm`."""
    params = {name: value.astype(np.float64) for name, value in params.items()}
    m, v = ({name: np.zeros_like(value) for name, value in params.items()} for _ in range(2))
    for t, gradient in enumerate(gradients, 1):
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient.values()))
        for name in params:
            g = gradient[name] * min(1.0, config.clip / norm)
            m[name] = config.b1 * m[name] + (1 - config.b1) * g
            v[name] = config.b2 * v[name] + (1 - config.b2) * g**2
            update = (m[name] / (1 - config.b1**t)) / (np.sqrt(v[name] / (1 - config.b2**t)) + config.eps)
            decay = config.weight_decay * params[name] if name == "matrix" else 0.0
            params[name] = params[name] - rate * (update + decay)
    return params


@pytest.mark.parametrize("size", [0.01, 10.0], ids=["not clipped", "clipped"])
def test_equals_adamw_in_float64(size):
    rng = np.random.default_rng(0)
    shapes = {"matrix": (2, 5, 4), "ffn_norm": (2, 5)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    gradients = [
        {name: rng.normal(0, size, shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(6)
    ]
    config = OptimizerConfig()
    optimizer = make_optimizer(config)
    found, state = params, optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, found)
        found = jax.tree.map(lambda p, u: p - 0.1 * u, found, updates)
    for name, wanted in reference(params, gradients, 0.1, config).items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)  # float32 rounding over six steps


def test_defaults_are_the_papers():
    assert OptimizerConfig() == OptimizerConfig(b1=0.9, b2=0.95, eps=1e-5, weight_decay=0.1, clip=1.0)


def test_decays_all_matrices_of_the_model_and_no_norm():
    params = jax.eval_shape(lambda key: init_language_model(PRESETS["tiny"], key), jax.random.key(0))
    found, _ = jax.tree_util.tree_flatten_with_path(decays(params))
    not_decayed = {jax.tree_util.keystr(path[-1:], simple=True) for path, decayed in found if not decayed}
    assert not_decayed == {"attention_norm", "ffn_norm", "final_norm"}
    assert len(found) == 12


def test_a_zero_gradient_only_decays():
    params = {"matrix": jnp.ones((2, 2)), "final_norm": jnp.ones(2)}
    optimizer = make_optimizer(OptimizerConfig())
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["matrix"], 0.1, rtol=1e-6)
    np.testing.assert_array_equal(updates["final_norm"], 0.0)
