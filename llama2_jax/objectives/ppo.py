"""The losses of PPO (Schulman et al. 2017), as means over all response tokens of a minibatch."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

Scalar = Float[Array, ""]


def policy_loss(
    logp: Float[Array, "*tokens"],
    old_logp: Float[Array, "*tokens"],
    advantages: Float[Array, "*tokens"],
    mask: Shaped[Array, "*tokens"],
    clip: float,
    denominator: Float[Array, ""],
) -> tuple[Scalar, dict[str, Scalar]]:
    """The clipped surrogate: -mean of min(ratio A, clip(ratio, 1 - clip, 1 + clip) A), ratio = exp(logp - old_logp).

    Args:
      logp: log-probabilities of the response tokens under the policy that is being trained.
      old_logp: under the policy that sampled them, by the same function at the same temperature.
      advantages: of each token; constants.
      mask: which entries are response tokens (EOS is one); nothing else is looked at.
      clip: 0.2 in the paper.
      denominator: the number of response tokens of the whole minibatch, of which these may be a part: the losses of
        parts add up.

    Returns:
      The loss and metrics that add up likewise: `clip_fraction`, the share of tokens whose ratio lies outside of the
      clip range; `approximate_kl`, the k3 estimate of KL(old || new) in nats a token; `ratio_mean`, which is 1 at the
      first minibatch.
    """
    inside = mask.astype(bool)
    # Before exp: what stands at other entries may overflow, and 0 times infinity is NaN in the gradient.
    log_ratio = jnp.where(inside, logp - old_logp, 0.0)
    ratio = jnp.exp(log_ratio)
    advantages = jnp.where(inside, advantages, 0.0)
    surrogate = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantages)

    def mean(x: Float[Array, "*tokens"]) -> Scalar:
        return jnp.sum(jnp.where(inside, x, 0.0)) / denominator

    metrics = {
        "clip_fraction": mean((jnp.abs(ratio - 1.0) > clip).astype(jnp.float32)),
        "approximate_kl": mean(kl_k3(old_logp, logp)),
        "ratio_mean": mean(ratio),
    }
    return -mean(surrogate), metrics


def value_loss(
    values: Float[Array, "*tokens"],
    old_values: Float[Array, "*tokens"],
    returns: Float[Array, "*tokens"],
    mask: Shaped[Array, "*tokens"],
    clip: float,
    denominator: Float[Array, ""],
) -> tuple[Scalar, dict[str, Scalar]]:
    """The critic's clipped loss: the mean of 0.5 max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2).

    The paper does not say how its critic learns; this is the form that PPO on language models has had since its first
    public code. The clip has the scale of the rewards, which whitening makes about 1.

    Args:
      values: the critic's estimate before each response token.
      old_values: the same from the critic as it was when the advantages were made.
      returns: from `generalized_advantages`; constants.
      mask: which entries are response tokens.
      clip: how far a value may move in one iteration before the loss stops rewarding it.
      denominator: the number of response tokens of the whole minibatch.

    Returns:
      The loss and metrics that add up: `value_clip_fraction`, the share of tokens where the clipped term is the larger.
    """
    inside = mask.astype(bool)
    values = jnp.where(inside, values, 0.0)
    old_values = jnp.where(inside, old_values, 0.0)
    returns = jnp.where(inside, returns, 0.0)
    clipped = jnp.clip(values, old_values - clip, old_values + clip)
    plain_error, clipped_error = jnp.square(values - returns), jnp.square(clipped - returns)
    loss = 0.5 * jnp.sum(jnp.where(inside, jnp.maximum(plain_error, clipped_error), 0.0)) / denominator
    is_clipped = jnp.where(inside, clipped_error > plain_error, False)
    return loss, {"value_clip_fraction": jnp.sum(is_clipped, dtype=jnp.float32) / denominator}


def kl_k1(logp: Float[Array, "*tokens"], other_logp: Float[Array, "*tokens"]) -> Float[Array, "*tokens"]:
    """log p - log q of tokens drawn from p: the unbiased estimate of KL(p || q), the one for rewards."""
    return logp - other_logp


def kl_k3(logp: Float[Array, "*tokens"], other_logp: Float[Array, "*tokens"]) -> Float[Array, "*tokens"]:
    """q/p - 1 - log(q/p) of tokens drawn from p: unbiased too, never negative, of less variance; for logs only."""
    log_ratio = other_logp - logp
    return jnp.expm1(log_ratio) - log_ratio
