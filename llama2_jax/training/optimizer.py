"""AdamW with the paper's settings (section 2.2)."""

import dataclasses
from typing import Any

import jax
import optax

Params = Any


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The paper's AdamW, the same in every stage; only learning rates differ.

    Attributes:
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the bias-corrected second moment.
      weight_decay: decoupled, multiplied by the learning rate; of matrices only, see `decays`.
      clip: gradients of a larger global norm are scaled down to it.
    """

    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-5
    weight_decay: float = 0.1
    clip: float = 1.0


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping, Adam and weight decay, without the learning rate.

    Its updates are to be multiplied by minus the learning rate, which the training step takes as an argument: stages
    and schedules that differ in nothing else then share one compiled program, and no schedule is baked into it.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=decays),
    )


def decays(params: Params) -> Params:
    """For each parameter whether weight decay applies: to matrices, embeddings among them, and not to norm scales.

    The paper does not say what is left out. A norm's scale multiplies a normed state; pulled to zero it would fade the
    layer, with no effect on complexity. It is told by its name and not its number of axes, because the scales of all
    layers are stacked into one [layers, dim] array.
    """

    def is_matrix(path: tuple, leaf: Any) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return leaf.ndim >= 2 and not name.endswith("norm")

    return jax.tree_util.tree_map_with_path(is_matrix, params)
