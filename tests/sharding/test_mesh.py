import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from llama2_jax.models.config import PRESETS
from llama2_jax.sharding.mesh import batch_sharding, batch_ways, check_divides, make_mesh, mesh_of


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((1, -1, 1), (1, 8, 1)), ((2, -1, 2), (2, 2, 2)), ((-1, 1, 4), (2, 1, 4)), ((2, 4, 1), (2, 4, 1))],
)
def test_minus_one_is_the_rest(sizes, shape):
    mesh = make_mesh(*sizes)
    assert tuple(mesh.shape.values()) == shape
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_all_devices_are_fully_sharded_by_default():
    assert make_mesh().shape["fsdp"] == len(jax.devices())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, -1, 1), "data=3 x fsdp=-1 x tensor=1 does not fit 8"),
        ((1, 1, 1), "does not fit 8"),
        ((16, -1, 1), "does not fit 8"),
        ((-1, -1, 1), "only one size"),
        ((0, -1, 1), "at least 1"),
    ],
)
def test_sizes_that_do_not_fit_the_devices_are_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(*sizes)


def test_a_mesh_of_given_devices():
    assert make_mesh(1, 1, 1, devices=jax.devices()[:1]).size == 1


def test_rows_are_split_over_data_and_fsdp():
    mesh = make_mesh(2, 2, 2)
    assert batch_sharding(mesh).spec == PartitionSpec(("data", "fsdp"))
    assert batch_ways(mesh) == 4
    assert batch_ways(None) == 1
    rows = jax.device_put(jnp.zeros((8, 3)), batch_sharding(mesh))
    assert {shard.data.shape for shard in rows.addressable_shards} == {(2, 3)}


def test_the_mesh_of_parameters_is_found():
    mesh = make_mesh(1, 8, 1)
    assert mesh_of({"a": jax.device_put(jnp.zeros(8), batch_sharding(mesh))}) == mesh
    assert mesh_of({"a": jnp.zeros(8)}) is None
    assert mesh_of({"a": jax.device_put(jnp.zeros(8), batch_sharding(make_mesh(devices=jax.devices()[:1])))}) is None


def test_a_model_that_can_not_be_split_is_refused_by_field():
    fields = dataclasses.asdict(PRESETS["tiny"])
    check_divides(fields, make_mesh(1, 4, 2))
    with pytest.raises(ValueError, match=r"model\.kv_heads=2 over mesh\.tensor=8"):
        check_divides(fields, make_mesh(1, 1, 8))
