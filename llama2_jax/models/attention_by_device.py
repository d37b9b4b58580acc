"""Attention kernels on a mesh: each device runs on its own rows and heads, since the compiler cannot split a kernel."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from llama2_jax.sharding.axes import partition_spec
from llama2_jax.sharding.mesh import data_parallel_size

ROWS, HEADS, KV_HEADS = (
    partition_spec(("batch", "length")),
    partition_spec(("batch", "length", "heads", None)),
    partition_spec(("batch", "length", "kv_heads", None)),
)


def by_device(kernel: Callable[..., Array], mesh: Mesh | None) -> Callable[..., Array]:
    """Returns the kernel (q, k, v, segment_ids) -> out mapped over the mesh's devices, without communication."""
    if mesh is None:
        return kernel
    # check_vma: the kernels' results do not declare the axes over which they vary.
    return jax.shard_map(
        kernel, mesh=mesh, in_specs=(HEADS, KV_HEADS, KV_HEADS, ROWS), out_specs=HEADS, check_vma=False
    )


def uneven(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    mesh: Mesh | None,
) -> str | None:
    """Returns why rows and heads cannot be split evenly over the mesh, or None if they can."""
    if mesh is None:
        return None
    groups, tensor = data_parallel_size(mesh), mesh.shape["tensor"]
    if q.shape[0] % groups:
        return (
            f"takes rows in multiples of mesh.data * mesh.fsdp = {groups}, not {q.shape[0]}: "
            "choose a batch size that is such a multiple"
        )
    for name, heads in (("heads", q.shape[2]), ("kv_heads", k.shape[2])):
        if heads % tensor:
            return f"cannot split model.{name}={heads} over mesh.tensor={tensor}: choose a mesh.tensor that divides it"
    return None
