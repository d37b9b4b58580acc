"""Kernels on a mesh: each device runs them on its own rows and heads, since the compiler can not split a kernel."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from llama2_jax.sharding.axes import partition_spec

ROWS, HEADS, KV_HEADS = (
    partition_spec(("batch", "length")),
    partition_spec(("batch", "length", "heads", None)),
    partition_spec(("batch", "length", "kv_heads", None)),
)


def by_device(kernel: Callable[..., Array], mesh: Mesh | None) -> Callable[..., Array]:
    """The kernel (q, k, v, segment_ids) -> out, run by each device of the mesh on its part; nothing is communicated."""
    if mesh is None:
        return kernel
    # The kernels' results do not say over which axes they vary, so that can not be checked.
    return jax.shard_map(
        kernel, mesh=mesh, in_specs=(HEADS, KV_HEADS, KV_HEADS, ROWS), out_specs=HEADS, check_vma=False
    )


def uneven(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    mesh: Mesh | None,
) -> str | None:
    """Why rows and heads can not be dealt out to the mesh evenly; None where they can."""
    if mesh is None:
        return None
    data_parallel_size, tensor = mesh.shape["data"] * mesh.shape["fsdp"], mesh.shape["tensor"]
    if q.shape[0] % data_parallel_size:
        return (
            f"takes rows in multiples of mesh.data * mesh.fsdp = {data_parallel_size}, not {q.shape[0]}: "
            "choose a batch size that divides"
        )
    for name, heads in (("heads", q.shape[2]), ("kv_heads", k.shape[2])):
        if heads % tensor:
            return f"can not split model.{name}={heads} over mesh.tensor={tensor}: choose a mesh.tensor that divides"
    return None
