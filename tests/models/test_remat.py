"""Each policy keeps what it promises, reruns no kernel, and changes no gradient."""

import collections
import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from llama2_jax.models import attention
from llama2_jax.models.config import REMAT_POLICIES, ModelConfig
from llama2_jax.models.llama import LanguageModel, init_language_model, parameter_shardings
from llama2_jax.models.remat import POLICIES
from llama2_jax.sharding.mesh import make_mesh

CONFIG = ModelConfig(vocab_size=32, dim=32, layers=3, heads=4, kv_heads=2, ffn_hidden=48, max_length=128)
ROWS = 4
DEVICES = {
    "splash": types.SimpleNamespace(platform="tpu", device_kind="TPU v5"),
    "cudnn": types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H100", compute_capability="9.0"),
}


def loss_of(mesh=None, length=16, **changes):
    """A loss of parameters through packed rows with padding."""
    model = LanguageModel(dataclasses.replace(CONFIG, **changes), mesh)
    tokens = np.arange(ROWS * length).reshape(ROWS, length) * 7 % CONFIG.vocab_size
    positions = np.tile(np.arange(length) % (length // 2), (ROWS, 1))
    segment_ids = np.tile(1 + np.arange(length) // (length // 2), (ROWS, 1))
    segment_ids[:, -2:] = 0
    return lambda params: jnp.mean(
        jnp.sin(10 * model.apply({"params": params}, tokens, positions, segment_ids)[:, :-2])
    )  # fmt: skip


def abstract_params():
    return jax.eval_shape(functools.partial(init_language_model, CONFIG), jax.random.key(0))


def kept_bytes(loss):
    """The bytes of the residuals that the backward pass reads, by kind of memory."""
    kept = jax.make_jaxpr(lambda params: jax.vjp(loss, params)[1])(abstract_params()).out_avals
    total = collections.Counter()
    for array in kept:
        total[array.memory_space.name.lower()] += array.size * array.dtype.itemsize
    return total


def operations(jaxpr):
    """All operations, also inside loops and calls, whose results are read."""
    read = {id(variable) for operation in jaxpr.eqns for variable in operation.invars}
    read |= {id(variable) for variable in jaxpr.outvars}
    for operation in jaxpr.eqns:
        if any(id(variable) in read for variable in operation.outvars):
            yield operation
        for value in operation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
                if isinstance(inner, Jaxpr):
                    yield from operations(inner)


def kernel_calls(loss):
    """How often each kernel of the attention occurs in the gradient; in a loop over layers it occurs once."""
    gradient = jax.make_jaxpr(jax.grad(loss))(abstract_params())
    names = [
        operation.params["name"] if operation.primitive.name == "pallas_call" else operation.primitive.name
        for operation in operations(gradient.jaxpr)
        if operation.primitive.name == "pallas_call" or "dot_product_attention" in operation.primitive.name
    ]
    return collections.Counter(kind for name in names for kind in ("_fwd_", "_bwd_", "_dkv_", "_dq_") if kind in name)


@pytest.fixture
def lower_for(monkeypatch):
    """Lowers programs for an accelerator that is not attached; they cannot be run."""

    def set_backend(backend):
        monkeypatch.setattr(attention, "program_device", lambda mesh: DEVICES[backend])
        # JAX checks the version of cuDNN when it lowers the program.
        monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)

    return set_backend


def test_every_policy_of_the_config_exists():
    assert set(REMAT_POLICIES) == {"none", *POLICIES}


@pytest.mark.parametrize("scan_layers", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_each_policy_keeps_what_it_promises(scan_layers):
    kept = {remat: kept_bytes(loss_of(remat=remat, scan_layers=scan_layers)) for remat in REMAT_POLICIES}
    numbers = CONFIG.layers * ROWS * 16 * 4  # bytes of one float32 number a token and layer
    wide, narrow = 2 * CONFIG.dim + 2 * CONFIG.ffn_hidden, 2 * CONFIG.kv_heads * CONFIG.head_dim
    assert kept["attention"]["device"] - kept["full"]["device"] == numbers * CONFIG.dim
    assert kept["dots"]["device"] - kept["attention"]["device"] == numbers * (wide + narrow)
    assert kept["offload"]["device"] - kept["attention"]["device"] == numbers * narrow
    assert kept["offload"]["host"] == numbers * wide
    assert kept["none"]["device"] > 2 * kept["dots"]["device"]
    assert not any(kept[remat]["host"] for remat in REMAT_POLICIES if remat != "offload")


@pytest.mark.parametrize("backend", ["splash", "cudnn"])
@pytest.mark.parametrize(
    ("remat", "split"), [*((remat, False) for remat in REMAT_POLICIES), ("dots", True), ("full", True)]
)
def test_only_full_runs_the_kernel_again(backend, remat, split, lower_for):
    lower_for(backend)
    mesh = make_mesh(2, 2, 2) if split else None
    calls = kernel_calls(loss_of(mesh, length=128, remat=remat, attention=backend, compute_dtype="bfloat16"))
    backward = {"_dkv_": 1, "_dq_": 1} if backend == "splash" else {"_bwd_": 1}
    assert calls == {"_fwd_": 2 if remat == "full" else 1, **backward}


def test_offloaded_results_are_placed_in_the_hosts_memory_by_the_program():
    def placements(remat):
        lowered = jax.jit(jax.grad(loss_of(remat=remat))).trace(abstract_params()).lower(lowering_platforms=("tpu",))
        return lowered.as_text().count('_xla_buffer_placement = "pinned_host"')

    assert placements("offload") == 4, "query, output, gate and up of the scanned layer"
    assert placements("dots") == 0


@functools.cache
def gradients(remat, scan_layers, split):
    """The gradients and the bytes of temporary memory of the compiled program."""
    mesh = make_mesh(2, 2, 2) if split else None
    params = jax.jit(init_language_model, static_argnums=0)(CONFIG, jax.random.key(0))
    shardings = parameter_shardings(LanguageModel(CONFIG), mesh) if split else None
    params = jax.device_put(params, shardings) if split else params
    program = jax.jit(jax.grad(loss_of(mesh, remat=remat, scan_layers=scan_layers)), out_shardings=shardings)
    compiled = program.lower(params).compile()
    return jax.device_get(compiled(params)), compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("remat", "scan_layers", "split"),
    [
        *((remat, True, False) for remat in POLICIES),
        *((remat, False, False) for remat in POLICIES),
        ("offload", True, True),
    ],
)
def test_no_policy_changes_the_gradients(remat, scan_layers, split):
    expected, _ = gradients("none", True, False)
    got, _ = gradients(remat, scan_layers, split)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        # The same sums in another order.
        np.testing.assert_allclose(one, other, atol=1e-5 * float(np.abs(other).max()))


@pytest.mark.slow
def test_the_compiled_program_needs_less_memory_the_less_is_kept():
    sizes = [gradients(remat, True, False)[1] for remat in ("none", "dots", "attention", "full")]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 1.5 * sizes[1] > 1.5 * sizes[2], sizes
