"""The losses of the reward models (section 3.2.2), and of one that learns from rankings (InstructGPT)."""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

# Table 27: the margin m(r) of each rating. The paper does not state which margins the released reward models used.
MARGINS: Mapping[str, Mapping[str, float]] = MappingProxyType({
    "none": MappingProxyType(
        {"significantly_better": 0.0, "better": 0.0, "slightly_better": 0.0, "negligibly_better": 0.0}
    ),
    "small": MappingProxyType(
        {"significantly_better": 1.0, "better": 2 / 3, "slightly_better": 1 / 3, "negligibly_better": 0.0}
    ),
    "large": MappingProxyType(
        {"significantly_better": 3.0, "better": 2.0, "slightly_better": 1.0, "negligibly_better": 0.0}
    ),
})  # fmt: skip


def ranking_loss(
    chosen: Float[Array, "*pairs"], rejected: Float[Array, "*pairs"], margin: Float[Array, "*pairs"]
) -> Float[Array, "*pairs"]:
    """-log sigmoid(r_chosen - r_rejected - m(r)) of each pair (equations 1 and 2).

    It is log 2 if the scores differ by exactly the margin. Sum it over the pairs of a microbatch and divide by the
    number of pairs of the whole batch.

    Args:
      chosen: the score of the preferred answer, before any sigmoid.
      rejected: the score of the other answer.
      margin: `MARGINS[...][rating]` of each pair.
    """
    return jax.nn.softplus(margin - (chosen - rejected))


def ranked_pairs_loss(
    better: Float[Array, "*pairs"], worse: Float[Array, "*pairs"], weight: Float[Array, "*pairs"]
) -> Float[Array, "*pairs"]:
    """-1 / C(K, 2) log sigmoid(r_better - r_worse) of each pair of a prompt's K answers (InstructGPT, equation 1).

    Sum it over the pairs of a microbatch and divide by the number of prompts of the whole batch: then every prompt has
    the same weight, whatever the number of its answers. Of tied answers no pair is made.

    Args:
      better: the score of the answer that is ranked higher, before any sigmoid.
      worse: the score of the other answer.
      weight: 1 / C(K, 2), K the number of answers to the pair's prompt.
    """
    return weight * ranking_loss(better, worse, jnp.zeros_like(better))


def safety_auxiliary_loss(
    score: Float[Array, "*responses"], is_safe: Shaped[Array, "*responses"], known: Shaped[Array, "*responses"]
) -> Float[Array, "*responses"]:
    """The cross-entropy of sigmoid(score) with each answer's safety label; 0 for answers without a label.

    The paper trains the safety reward model with an auxiliary loss to distinguish safe from unsafe answers (Table 29),
    but states neither its formula nor its weight. This form is our reconstruction: it makes the sigmoid of the score a
    probability of being safe, which is how the paper uses it (recall at 0.5 in Table 29, 0.15 in section 3.2.3).

    Args:
      score: the safety reward model's score of an answer, before the sigmoid.
      is_safe: whether the answer is safe: chosen and rejected are 1, 0 for `chosen_safe`, 1, 1 for `both_safe` and
        0, 0 for `both_unsafe`.
      known: whether the answer has a safety label.
    """
    is_safe = is_safe.astype(score.dtype)
    cross_entropy = jax.nn.softplus(score) - is_safe * score
    return jnp.where(known.astype(bool), cross_entropy, 0.0)
