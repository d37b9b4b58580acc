"""Compilation of programs for abstract arrays (shapes, dtypes and shardings); nothing is allocated."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax


class DoesNotFitError(RuntimeError):
    """A program does not fit into the device's memory; the message is the compiler's."""


def compile_abstract(function: Callable, *arguments: Any, **named: Any) -> jax.stages.Compiled:
    """Compiles a jitted function for abstract arguments; calls with equal arguments are cached.

    Args:
      function: from jax.jit.
      arguments: trees of jax.ShapeDtypeStruct.
      named: further arguments by name, abstract or static ones.

    Raises:
      DoesNotFitError: if the program needs more memory than the device has; only TPU compilers report it.
    """
    leaves, structure = jax.tree.flatten(arguments)
    compiled = _compile(function, structure, tuple(leaves), tuple(sorted(named.items())))
    if isinstance(compiled, str):
        raise DoesNotFitError(compiled)
    return compiled


@functools.lru_cache
def _compile(
    function: Callable, structure: Any, leaves: tuple, named: tuple[tuple[str, Any], ...]
) -> jax.stages.Compiled | str:
    lowered = function.lower(*jax.tree.unflatten(structure, leaves), **dict(named))
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return str(error)


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """Returns a tree of shapes and dtypes with the given sharding of each."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )


def device_bytes(tree: Any) -> int:
    """Returns the bytes that a tree of (abstract) arrays takes on each device."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
