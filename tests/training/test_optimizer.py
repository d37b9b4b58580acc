"""AdamW against NumPy in float64, what it decays, and in which dtype its moments rest."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llama2_jax.models.config import PRESETS
from llama2_jax.models.llama import init_language_model
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.optimizer import OptimizerConfig, decays, make_optimizer
from llama2_jax.training.state import abstract_state, create_state, state_shardings
from llama2_jax.training.step import build_train_step

NARROW = OptimizerConfig(moments_dtype="bfloat16")


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


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("b1", 1.0, "from 0 to below 1"),
        ("b1", 2.0, "from 0 to below 1"),
        ("b2", -0.1, "from 0 to below 1"),
        ("b2", float("nan"), "from 0 to below 1"),
        ("eps", 0.0, "above 0"),
        ("eps", -1.0, "above 0"),
        ("weight_decay", -1.0, "0 or more"),
        ("weight_decay", float("inf"), "0 or more"),
        ("clip", 0.0, "above 0"),
        ("clip", -1.0, "above 0"),
        ("clip", float("inf"), "above 0"),
    ],
)
def test_a_setting_that_would_not_train_is_refused(field, value, wanted):
    with pytest.raises(ValueError, match=rf"optimizer\.{field}={value}: it must be a finite number, {wanted}\."):
        OptimizerConfig(**{field: value})


def test_float32_moments_equal_optax_adamw_with_clipping():
    rng = np.random.default_rng(0)
    params = {"matrix": rng.normal(size=(5, 4)).astype(np.float32)}
    ours, theirs = (
        make_optimizer(OptimizerConfig()),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1, b1=0.9, b2=0.95, eps=1e-5, weight_decay=0.1)),
    )
    states = ours.init(params), theirs.init(params)
    for _ in range(4):
        gradients = {"matrix": rng.normal(size=(5, 4)).astype(np.float32)}
        found, state = ours.update(gradients, states[0], params)
        wanted, other = theirs.update(gradients, states[1], params)
        states = state, other
        # The rate is multiplied in another place.
        np.testing.assert_allclose(-0.1 * found["matrix"], wanted["matrix"], rtol=1e-6)


def moments(state):
    return jax.tree.leaves((state.opt_state[1].mu, state.opt_state[1].nu))


@pytest.fixture(scope="module")
def train(toy, batch_of):
    """Trains with moments of a dtype on four batches in turn: the last state and the losses."""
    optimizers = {config.moments_dtype: make_optimizer(config) for config in (OptimizerConfig(), NARROW)}
    steps = {name: build_train_step(toy.loss, toy.count, optimizer) for name, optimizer in optimizers.items()}

    def run(moments_dtype, until, state=None):
        state = create_state(toy.init(), optimizers[moments_dtype]) if state is None else state
        losses = []
        for number in range(int(state.step), until):
            state, metrics = steps[moments_dtype](state, batch_of(number % 4), np.float32(0.01))
            losses.append(float(metrics["loss"]))
        return state, np.array(losses)

    return run


def test_bfloat16_moments_have_half_the_bytes(toy):
    wide, narrow = (create_state(toy.init(), make_optimizer(config)) for config in (OptimizerConfig(), NARROW))
    assert {leaf.dtype for leaf in moments(narrow)} == {jnp.dtype("bfloat16")}
    assert 2 * sum(leaf.nbytes for leaf in moments(narrow)) == sum(leaf.nbytes for leaf in moments(wide))
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow.params)} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_bfloat16_moments_follow_float32_ones(train, toy):
    (wide, losses), (narrow, found) = (train(dtype, 50) for dtype in ("float32", "bfloat16"))
    assert losses[-1] < losses[0] - 1, "there was something to learn"
    # A stored moment is off by up to 2^-8 = 0.4 %, by chance up or down, and an update by about as much.
    np.testing.assert_allclose(found, losses, rtol=5e-3)
    assert np.abs(found - losses).max() > 0, "the moments were rounded"
    assert {leaf.dtype for leaf in moments(narrow)} == {jnp.dtype("bfloat16")}
    moved = optax.tree.norm(optax.tree.sub(wide.params, toy.init()))
    assert optax.tree.norm(optax.tree.sub(wide.params, narrow.params)) < 0.02 * moved


@pytest.mark.slow
def test_bfloat16_moments_resume_bit_for_bit(train, tmp_path):
    whole, _ = train("bfloat16", 6)
    half, _ = train("bfloat16", 3)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(3, half)
        restored = checkpoints.restore(abstract_state(half)).state
    resumed, _ = train("bfloat16", 6, restored)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_bfloat16_moments_lie_as_the_parameters_do(toy):
    mesh = make_mesh(data=2, fsdp=4)
    shardings = jax.tree.map(
        lambda axes: jax.NamedSharding(mesh, jax.P(*axes)), toy.axes, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )
    adam = state_shardings(make_optimizer(NARROW), shardings).opt_state[1]
    assert adam.mu == adam.nu == shardings


def test_a_dtype_or_a_decay_that_can_not_work_is_named():
    with pytest.raises(ValueError, match=r"optimizer.moments_dtype is 'float16'; it must be one of float32, bfloat16"):
        OptimizerConfig(moments_dtype="float16")
    with pytest.raises(ValueError, match=r"optimizer.b2=0.999 .* at most 0.996, or optimizer.moments_dtype=float32"):
        OptimizerConfig(b2=0.999, moments_dtype="bfloat16")
    assert OptimizerConfig(b2=0.999).moments_dtype == "float32"


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
