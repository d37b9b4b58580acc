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
      logp: log-probabilities of the response tokens under the policy in training.
      old_logp: under the policy that sampled them, by the same function at the same temperature.
      advantages: of each token; constants.
      mask: which entries are response tokens, EOS included; others are ignored.
      clip: 0.2 in the paper.
      denominator: the number of response tokens of the whole minibatch, of which these may be a part: the losses of
        parts add up.

    Returns:
      The loss and metrics that add up in the same way: `clip_fraction`, the fraction of tokens with a ratio outside the
      clip range; `approximate_kl`, the k3 estimate of KL(old || new) in nats a token; `ratio_mean`; `log_ratio_abs`,
      the mean of |log ratio|, which is 0 at the first minibatch and for no other policy.
    """
    mask = mask.astype(bool)
    # Masked before exp: other entries may overflow, and 0 times infinity is NaN in the gradient.
    log_ratio = jnp.where(mask, logp - old_logp, 0.0)
    ratio = jnp.exp(log_ratio)
    advantages = jnp.where(mask, advantages, 0.0)
    surrogate = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantages)

    def mean(x: Float[Array, "*tokens"]) -> Scalar:
        return jnp.sum(jnp.where(mask, x, 0.0)) / denominator

    metrics = {
        "clip_fraction": mean((jnp.abs(ratio - 1.0) > clip).astype(jnp.float32)),
        "approximate_kl": mean(kl_k3(old_logp, logp)),
        "ratio_mean": mean(ratio),
        "log_ratio_abs": mean(jnp.abs(log_ratio)),
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

    The paper does not state its critic's loss; this is the form of PPO on language models since its first public code.
    The clip has the scale of the rewards, about 1 after whitening.

    Args:
      values: the critic's estimate before each response token.
      old_values: the estimates from which the advantages were computed.
      returns: from `generalized_advantages`; constants.
      mask: which entries are response tokens.
      clip: how far a value may move in one iteration before the loss stops rewarding it.
      denominator: the number of response tokens of the whole minibatch.

    Returns:
      The loss and metrics that add up: `value_clip_fraction`, the fraction of tokens whose clipped term is the larger.
    """
    mask = mask.astype(bool)
    values = jnp.where(mask, values, 0.0)
    old_values = jnp.where(mask, old_values, 0.0)
    returns = jnp.where(mask, returns, 0.0)
    clipped = jnp.clip(values, old_values - clip, old_values + clip)
    error, clipped_error = jnp.square(values - returns), jnp.square(clipped - returns)
    loss = 0.5 * jnp.sum(jnp.where(mask, jnp.maximum(error, clipped_error), 0.0)) / denominator
    is_clipped = jnp.where(mask, clipped_error > error, False)
    return loss, {"value_clip_fraction": jnp.sum(is_clipped, dtype=jnp.float32) / denominator}


def kl_penalty(
    logp: Float[Array, "*tokens"],
    reference_logp: Float[Array, "*tokens"],
    mask: Shaped[Array, "*tokens"],
    denominator: Float[Array, ""],
) -> Scalar:
    """The mean of k3 over response tokens, an estimate of KL(policy || reference) in nats a token, for the loss.

    With a critic the KL is a part of each token's reward (objectives/rewards.py). The advantages of a group are of
    whole answers, so there it is a term of the loss (GRPO: Shao et al. 2024, equations 3 and 4).

    Args:
      logp: log-probabilities of the response tokens under the policy in training.
      reference_logp: under the reference; constants.
      mask: which entries are response tokens.
      denominator: the number of response tokens of the whole minibatch.
    """
    mask = mask.astype(bool)
    # Masked before exp, as in `policy_loss`.
    logp, reference_logp = (jnp.where(mask, x, 0.0) for x in (logp, reference_logp))
    return jnp.sum(kl_k3(logp, reference_logp)) / denominator


def kl_k1(logp: Float[Array, "*tokens"], other_logp: Float[Array, "*tokens"]) -> Float[Array, "*tokens"]:
    """log p - log q for tokens sampled from p: an unbiased estimate of KL(p || q), for rewards."""
    return logp - other_logp


def kl_k3(logp: Float[Array, "*tokens"], other_logp: Float[Array, "*tokens"]) -> Float[Array, "*tokens"]:
    """q/p - 1 - log(q/p) for tokens sampled from p: also unbiased, never negative, of lower variance.

    For logs and losses. As a reward its gradient nearly vanishes close to q.
    """
    log_ratio = other_logp - logp
    return jnp.expm1(log_ratio) - log_ratio
