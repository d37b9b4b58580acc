"""Rotary position embeddings on adjacent pairs of features, as in Meta's code and checkpoints."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Rotation(NamedTuple):
    """The cosine and sine of each pair of a head's features; computed once for all layers."""

    cosine: Float[Array, "rows length pairs"]
    sine: Float[Array, "rows length pairs"]


def rotation(positions: Int[Array, "rows length"], head_dim: int, theta: float) -> Rotation:
    """Returns each position's rotation: pair i by position * theta^(-2i / head_dim), float32 (RoFormer, eq. 15)."""
    frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x: Float[Array, "rows length heads head_dim"], by: Rotation) -> Float[Array, "rows length heads head_dim"]:
    """Rotates each adjacent pair of features (x[2i], x[2i + 1]) of queries or keys, in float32; returns x's dtype."""
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    cosine, sine = by.cosine[:, :, None, :], by.sine[:, :, None, :]
    rotated = jnp.stack((first * cosine - second * sine, first * sine + second * cosine), axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)
