"""Weights on their way from where they are stored to where they are used: cast first, then gathered; gradients back."""

import functools
from collections.abc import Sequence

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from llama2_jax.sharding.axes import GATHERED, constrain


def cast_and_gather(
    weight: Float[Array, "..."], dtype: str, mesh: Mesh | None, axes: Sequence[str], gathered: bool = False
) -> Float[Array, "..."]:
    """A parameter in the dtype of the computation, its split written down.

    Cast before it is gathered: in bfloat16 that moves half the bytes. The gradient comes back split at once: that of a
    scanned layer is summed up and split in the loop, and not for all layers after it.

    Args:
      weight: the parameter, split as the training rules say.
      dtype: of the computation.
      mesh: None for one device, where this is the cast alone.
      axes: the parameter's logical axes.
      gathered: whole over fsdp already, so that all that reads it shares one gather; else the compiler gathers it at
        each product. Only where the backward pass gathers again, or it keeps the whole weight.
    """
    ready = constrain(weight.astype(dtype), mesh, axes)
    return _gather(ready, mesh, tuple(axes)) if gathered and mesh is not None else ready


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(weight: Float[Array, "..."], mesh: Mesh, axes: tuple[str, ...]) -> Float[Array, "..."]:
    return constrain(weight, mesh, axes, GATHERED)


def _forward(weight, mesh, axes):
    return _gather(weight, mesh, axes), None


def _backward(mesh, axes, _, gradient):
    # Not whole, as the transpose of the constraint would have it: summed over all devices, and then split.
    return (constrain(gradient, mesh, axes),)


_gather.defvjp(_forward, _backward)
