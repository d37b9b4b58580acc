"""Identity preference optimisation (Azar et al. 2023)."""

from jaxtyping import Array, Float


def ipo_loss(
    chosen: Float[Array, " pairs"], rejected: Float[Array, " pairs"], reference: Float[Array, " pairs"], beta: float
) -> Float[Array, " pairs"]:
    """((log p(chosen) - log p(rejected)) - reference - 1 / (2 beta))^2, equation 17.

    Args:
      chosen, rejected: log-probabilities of the answers under the policy.
      reference: log p(chosen) - log p(rejected) under the reference policy.
      beta: the weight of the KL to it.
    """
    return (chosen - rejected - reference - 1 / (2 * beta)) ** 2
