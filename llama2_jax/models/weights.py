"""Weights from their stored to their computed form: cast first, then gathered; gradients scattered back."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from llama2_jax.sharding.axes import GATHERED, constrain


def cast_and_gather(
    weight: Float[Array, "..."], dtype: str, mesh: Mesh | None, axes: Sequence[str], gathered: bool = False
) -> Float[Array, "..."]:
    """Returns a parameter in the computation's dtype, with an explicit sharding.

    It is cast before it is gathered: in bfloat16 that moves half the bytes. Its gradient is reduced and scattered at
    once: for a scanned layer in the loop, and not for all layers after it.

    Args:
      weight: the parameter, split by the training rules.
      dtype: of the computation; whole numbers, of a matrix in few bits, stay as they are.
      mesh: None for one device, where this is only the cast.
      axes: the parameter's logical axes.
      gathered: gather it over fsdp here, once for all its uses; else the compiler gathers it at each product. Only for
        a backward pass that gathers again; otherwise the gathered weight would be kept for it.
    """
    cast = constrain(cast_floats(weight, dtype), mesh, axes)
    return _gather(cast, mesh, tuple(axes)) if gathered and mesh is not None else cast


def cast_floats(array: Array, dtype: str) -> Array:
    """Returns an array in the dtype if it has floating-point numbers, else as it is."""
    return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(weight: Float[Array, "..."], mesh: Mesh, axes: tuple[str, ...]) -> Float[Array, "..."]:
    return constrain(weight, mesh, axes, GATHERED)


def _forward(weight, mesh, axes):
    return _gather(weight, mesh, axes), None


def _backward(mesh, axes, _, gradient):
    # The transpose of the constraint would be an all-reduce; this is a reduce-scatter.
    return (constrain(gradient, mesh, axes),)


_gather.defvjp(_forward, _backward)
