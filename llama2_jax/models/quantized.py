"""Matrices stored in 8 or 4 bits, by group and symmetric, and restored where they are used.

A group of neighbouring inputs of one output shares a scale: the largest of its weights is 127 steps of 8 bits, or 7
steps of 4 bits, and each weight is rounded to a whole number of steps. With groups of 32, as in the 4-bit release of
GPT4All (ggml's q4_0), a weight takes 4.5 bits. Only the seven matrices of the layers are stored so. QLoRA (Dettmers et
al. 2023) trains adapters beside such matrices.
"""

import dataclasses
import functools
import math
import types
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

# The most steps to either side.
LEVELS: Mapping[int, int] = types.MappingProxyType({8: 127, 4: 7})


@dataclasses.dataclass(frozen=True)
class Quantization:
    """How matrices are stored. Frozen and hashable: a static argument of compiled programs.

    Attributes:
      bits: 8 or 4.
      group: how many inputs share a scale; fewer, their greatest common divisor, where it does not divide the inputs.
    """

    bits: int
    group: int = 32


# The names by which flags and configs ask for it; "" is none.
QUANTIZATIONS: Mapping[str, Quantization | None] = types.MappingProxyType(
    {"": None, "int8": Quantization(8), "int4": Quantization(4)}
)


def quantization(name: str) -> Quantization | None:
    """Returns what a name of QUANTIZATIONS means.

    Raises:
      ValueError: for another name.
    """
    if name not in QUANTIZATIONS:
        raise ValueError(f'quantize={name!r}: choose one of {", ".join(filter(None, QUANTIZATIONS))}, or "" for none')
    return QUANTIZATIONS[name]


@flax.struct.dataclass
class QuantizedMatrix:
    """A matrix of one layer, or of all layers stacked on axis 0, in few bits.

    Attributes:
      values: whole numbers of steps; of 4 bits two in a byte, neighbouring inputs, the first one in the lower half.
      scales: the size of a step, bfloat16.
      bits: of a value.
    """

    values: Int8[Array, "*layers stored outputs"]
    scales: Float[Array, "*layers groups outputs"]
    bits: int = flax.struct.field(pytree_node=False, default=8)

    def restored(self, dtype: jnp.dtype | str) -> Float[Array, "*layers inputs outputs"]:
        """Returns the matrix, multiplied out in a dtype."""
        steps = _unpacked(self.values) if self.bits == 4 else self.values
        *layers, inputs, outputs = steps.shape
        groups = self.scales.shape[-2]
        grouped = steps.reshape(*layers, groups, inputs // groups, outputs).astype(dtype)
        return (grouped * self.scales[..., None, :].astype(dtype)).reshape(steps.shape)


@functools.partial(jax.jit, static_argnames="how")
def quantize(matrix: Float[Array, "*layers inputs outputs"], how: Quantization) -> QuantizedMatrix:
    """Returns a matrix in few bits, each weight at most half a step from what it was, and a rounding of the scale.

    Raises:
      ValueError: if two values cannot share a byte, as there is an odd number of inputs.
    """
    *layers, inputs, outputs = matrix.shape
    if how.bits == 4 and inputs % 2:
        raise ValueError(f"a matrix of {inputs} inputs cannot be stored in 4 bits, two in a byte: the number is odd")
    group = math.gcd(inputs, how.group)
    grouped = matrix.astype(jnp.float32).reshape(*layers, inputs // group, group, outputs)
    levels = LEVELS[how.bits]
    scales = (jnp.max(jnp.abs(grouped), axis=-2) / levels).astype(jnp.bfloat16)
    step = scales.astype(jnp.float32)[..., None, :]
    # A group of zeros has no step.
    steps = jnp.where(step > 0, grouped / jnp.where(step > 0, step, 1.0), 0.0)
    steps = jnp.clip(jnp.round(steps), -levels, levels).astype(jnp.int8).reshape(matrix.shape)
    return QuantizedMatrix(_packed(steps) if how.bits == 4 else steps, scales, how.bits)


def quantize_layers(params: dict, how: Quantization | None) -> dict:
    """Returns a model's parameters with the layers' matrices in few bits; those that are so already stay as they are.

    Args:
      params: as models/llama.py describes them, a model's or its trunk's.
      how: None leaves everything as it is.
    """
    if how is None:
        return params
    layers = {
        name: quantize(one, how) if not isinstance(one, QuantizedMatrix) and one.ndim == 3 else one
        for name, one in params["trunk"]["layers"].items()
    }
    return {**params, "trunk": {**params["trunk"], "layers": layers}}


def is_quantized(params: dict) -> bool:
    """Whether some of a model's matrices are in few bits."""
    leaves = jax.tree.leaves(params, is_leaf=lambda one: isinstance(one, QuantizedMatrix))
    return any(isinstance(leaf, QuantizedMatrix) for leaf in leaves)


def quantized_shape(shape: tuple[int, ...], how: Quantization) -> QuantizedMatrix:
    """Returns a matrix of a shape in few bits, as shapes and dtypes; nothing is allocated."""
    return jax.eval_shape(functools.partial(quantize, how=how), jax.ShapeDtypeStruct(shape, jnp.float32))


def plain(matrix: Float[Array, "*layers inputs outputs"] | QuantizedMatrix) -> Float[Array, "*layers inputs outputs"]:
    """Returns a matrix as an array, in float32 if it was in few bits."""
    return matrix.restored(jnp.float32) if isinstance(matrix, QuantizedMatrix) else matrix


def _packed(steps: Int8[Array, "*layers inputs outputs"]) -> Int8[Array, "*layers half outputs"]:
    first, second = steps[..., 0::2, :], steps[..., 1::2, :]
    return (first & 0x0F) | (second << 4)


def _unpacked(stored: Int8[Array, "*layers half outputs"]) -> Int8[Array, "*layers inputs outputs"]:
    # Shifts of signed numbers keep the sign.
    both = jnp.stack(((stored << 4) >> 4, stored >> 4), axis=-2)
    return both.reshape(*stored.shape[:-2], 2 * stored.shape[-2], stored.shape[-1])
