import importlib.util
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from llama2_jax.models import attention_splash, attention_xla
from llama2_jax.models.attention import attention
from llama2_jax.models.attention_by_device import HEADS, KV_HEADS, ROWS
from llama2_jax.models.attention_splash import block_size, refusal
from llama2_jax.sharding.mesh import make_mesh

TPU = types.SimpleNamespace(platform="tpu", device_kind="TPU v5")


@pytest.mark.parametrize(("length", "size"), [(128, 128), (384, 384), (640, 128), (1024, 512), (4096, 512)])
def test_blocks_are_the_largest_that_divide(length, size):
    assert block_size(length) == size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": jnp.float16}, "computes in bfloat16 or float32, not float16: set model.compute_dtype"),
        ({"rows": 6}, r"multiples of mesh.data \* mesh.fsdp = 4, not 6: choose a batch size that is such a multiple"),
        ({"heads": 3, "kv_heads": 3}, "model.heads=3 over mesh.tensor=2"),
        ({"kv_heads": 1}, "model.kv_heads=1 over mesh.tensor=2"),
    ],
)
def test_unsupported_arrays_are_refused_with_a_reason(change, message):
    sizes = {"rows": 8, "heads": 4, "kv_heads": 2, "dtype": jnp.bfloat16} | change
    q, k = (
        jax.ShapeDtypeStruct((sizes["rows"], 256, sizes[name], 64), sizes["dtype"]) for name in ("heads", "kv_heads")
    )
    mesh = make_mesh(2, 2, 2)
    assert re.search(message, refusal(q, k, mesh, TPU))
    assert refusal(*(jax.ShapeDtypeStruct((8, 256, heads, 64), jnp.bfloat16) for heads in (4, 2)), mesh, TPU) is None


@pytest.mark.slow
def test_on_a_mesh_every_device_computes_its_own_rows_and_heads():
    mesh, ids = make_mesh(2, 2, 2), jnp.asarray(np.tile(np.repeat([1, 2, 0], [50, 60, 18]), (4, 1)), jnp.int32)
    q, k, v = (
        jax.random.normal(key, (4, 128, heads, 8))
        for key, heads in zip(jax.random.split(jax.random.key(0), 3), (4, 2, 2), strict=True)
    )

    def value_and_gradients(run, shardings):
        def loss(q, k, v):
            out = run(q, k, v)
            return jnp.sum(jnp.sin(out)), out

        program = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True), in_shardings=shardings)
        (_, out), gradients = program(q, k, v)
        return out, gradients

    split = tuple(NamedSharding(mesh, spec) for spec in (HEADS, KV_HEADS, KV_HEADS))
    out, gradients = value_and_gradients(
        lambda *qkv: attention_splash.attention(*qkv, ids, mesh, interpret=True), split
    )  # fmt: skip
    expected, expected_gradients = value_and_gradients(lambda *qkv: attention_xla.attention(*qkv, ids), None)
    assert out.sharding.shard_shape(out.shape) == (1, 128, 2, 8)
    for got, reference in zip((out, *gradients), (expected, *expected_gradients), strict=True):
        np.testing.assert_allclose(got, reference, atol=1e-5)  # the same sums in another order


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install libtpu")
def test_it_compiles_for_a_slice_without_communication(monkeypatch):
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    mesh = make_mesh(1, 2, 2, devices=topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1").devices)
    q, k, ids = (
        jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
        for shape, dtype, spec in (
            ((4, 1000, 8, 64), jnp.bfloat16, HEADS),
            ((4, 1000, 4, 64), jnp.bfloat16, KV_HEADS),
            ((4, 1000), jnp.int32, ROWS),
        )
    )

    def loss(q, k, v, ids):
        return jnp.sum(attention(q, k, v, ids, "auto", mesh).astype(jnp.float32) ** 2)

    program = jax.jit(jax.grad(loss, (0, 1, 2))).lower(q, k, k, ids).compile().as_text()
    assert program.count('custom_call_target="tpu_custom_call"') == 3, "forward, keys and values, queries"
    assert not any(f" {collective}(" in program for collective in ("all-gather", "all-reduce", "all-to-all"))
