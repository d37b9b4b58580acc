"""AdamW with the paper's settings (section 2.2)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

Params = Any

MOMENT_DTYPES = ("float32", "bfloat16")
# Neighbouring bfloat16 numbers differ by up to twice this fraction: a smaller change may be rounded away.
BFLOAT16_CHANGE = 2.0**-8


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The paper's AdamW, the same in every stage; only learning rates differ.

    Attributes:
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the bias-corrected second moment.
      weight_decay: decoupled, multiplied by the learning rate; only for matrices, see `decays`.
      clip: gradients of a larger global norm are scaled down to it.
      moments_dtype: the dtype in which both moments are stored, float32 or bfloat16 (half the bytes); they are computed
        in float32.

    Raises:
      ValueError: if a number is not in its range, if the dtype is another one, or if it is bfloat16 and a decay is too
        close to 1 for it.
    """

    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-5
    weight_decay: float = 0.1
    clip: float = 1.0
    moments_dtype: str = "float32"

    def __post_init__(self):
        # The comparisons fail for nan, too.
        for name, wanted, holds in (
            ("b1", "from 0 to below 1", 0 <= self.b1 < 1),
            ("b2", "from 0 to below 1", 0 <= self.b2 < 1),
            ("eps", "above 0", 0 < self.eps < math.inf),
            ("weight_decay", "0 or more", 0 <= self.weight_decay < math.inf),
            ("clip", "above 0", 0 < self.clip < math.inf),
        ):
            if not holds:
                raise ValueError(f"optimizer.{name}={getattr(self, name)}: it must be a finite number, {wanted}.")
        if self.moments_dtype not in MOMENT_DTYPES:
            raise ValueError(
                f"optimizer.moments_dtype is {self.moments_dtype!r}; it must be one of {', '.join(MOMENT_DTYPES)}."
            )
        for name in ("b1", "b2"):
            # Without gradients a moment shrinks by 1 - b per step; if bfloat16 does not resolve that, it never changes.
            if self.moments_dtype == "bfloat16" and 1 - getattr(self, name) < BFLOAT16_CHANGE:
                raise ValueError(
                    f"optimizer.{name}={getattr(self, name)} changes a moment by less per step than bfloat16 resolves: "
                    f"choose one of at most {1 - BFLOAT16_CHANGE:.3f}, or optimizer.moments_dtype=float32."
                )


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Returns clipping, Adam and weight decay, without the learning rate.

    The training step takes the learning rate as an argument and multiplies the updates by minus it: stages and
    schedules that differ in nothing else then share one compiled program, and no schedule is baked into it.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        _adam(config),
        optax.add_decayed_weights(config.weight_decay, mask=decays),
    )


def _adam(config: OptimizerConfig) -> optax.GradientTransformation:
    """Returns Adam, whose moments are stored in `moments_dtype` between steps."""
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    if config.moments_dtype == "float32":
        return adam

    def moments_as(dtype: str, state: optax.ScaleByAdamState) -> optax.ScaleByAdamState:
        mu, nu = optax.tree.cast((state.mu, state.nu), jnp.dtype(dtype))
        return state._replace(mu=mu, nu=nu)

    def init(params: Params) -> optax.ScaleByAdamState:
        return moments_as(config.moments_dtype, adam.init(params))

    def update(gradients: Params, state: optax.ScaleByAdamState, params: Params = None) -> tuple:
        updates, state = adam.update(gradients, moments_as("float32", state), params)
        return updates, moments_as(config.moments_dtype, state)

    return optax.GradientTransformation(init, update)


def decays(params: Params) -> Params:
    """Returns for each parameter whether weight decay applies: to matrices, including embeddings, not to norm scales.

    The paper does not say which parameters are left out. A norm's scale multiplies a normalised state; decay would only
    weaken the layer, with no effect on complexity. Scales are recognised by name and not by their number of axes,
    because those of all layers are stacked into one [layers, dim] array.
    """

    def is_matrix(path: tuple, leaf: Any) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return leaf.ndim >= 2 and not name.endswith("norm")

    return jax.tree_util.tree_map_with_path(is_matrix, params)
