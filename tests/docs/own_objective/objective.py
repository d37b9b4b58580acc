"""Direct preference optimization (Rafailov et al. 2023)."""

import jax
from jaxtyping import Array, Float


def dpo_loss(
    chosen: Float[Array, "pairs"], rejected: Float[Array, "pairs"], reference: Float[Array, "pairs"], beta: float
) -> Float[Array, "pairs"]:
    """-log sigmoid(beta ((log p(chosen) - log p(rejected)) - reference)), equation 7.

    Args:
      chosen, rejected: log-probabilities of the answers under the policy.
      reference: log p(chosen) - log p(rejected) under the reference policy.
      beta: the weight of the KL to it.
    """
    return jax.nn.softplus(-beta * (chosen - rejected - reference))
