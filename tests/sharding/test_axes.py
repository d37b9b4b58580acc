import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from llama2_jax.sharding.axes import constrain, partition_spec, replicate
from llama2_jax.sharding.mesh import make_mesh


def test_logical_names_become_mesh_axes():
    assert partition_spec(("layers", "embed", "ffn")) == PartitionSpec(None, "fsdp", "tensor")
    assert partition_spec(("batch", None, "vocab")) == PartitionSpec(("data", "fsdp"), None, "tensor")


def test_a_misspelt_axis_raises_and_is_not_silently_replicated():
    with pytest.raises(KeyError, match="embedd"):
        partition_spec(("embedd",))


def test_constraints_take_effect_inside_a_program():
    mesh = make_mesh(2, 2, 2)
    x = jnp.ones((8, 3, 4))
    split = jax.jit(lambda x: constrain(x * 2, mesh, ("batch", "length", "heads")))(x)
    assert split.sharding.spec == PartitionSpec(("data", "fsdp"), None, "tensor")
    assert jax.jit(lambda x: replicate(x * 2, mesh))(split).is_fully_replicated


def test_without_a_mesh_nothing_is_done():
    x = jnp.ones(3)
    assert constrain(x, None, ("batch",)) is x
    assert replicate(x, None) is x
