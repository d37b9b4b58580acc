"""Generalised advantage estimation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def generalized_advantages(
    rewards: Float[Array, "answers length"],
    values: Float[Array, "answers length"],
    mask: Shaped[Array, "answers length"],
    gamma: float,
    lambda_: float,
) -> tuple[Float[Array, "answers length"], Float[Array, "answers length"]]:
    """Advantages of the answers' tokens, and the returns that the critic is to learn (Schulman et al. 2016).

        delta_t = r_t + gamma V_(t+1) - V_t
        A_t     = delta_t + gamma lambda A_(t+1)
        return_t = A_t + V_t

    Beyond an answer's last token both V and A are 0: the answer has ended there, by EOS or because it was cut off.

    Args:
      rewards: of each token (action).
      values: the critic's estimate before each token: of what is still to come, that token's reward included.
      mask: the answers' tokens: each row one unbroken run, wherever in the row it stands.
      gamma: the discount. The paper does not say; 1 is customary for answers rewarded at their end.
      lambda_: between 0 (one step) and 1 (the whole return). The paper does not say; 0.95 is customary.

    Returns:
      Advantages and returns in float32, 0 outside of the mask; constants, through which no gradient flows.
    """
    inside = mask.astype(bool)
    rewards = jnp.where(inside, rewards.astype(jnp.float32), 0.0)
    values = jnp.where(inside, values.astype(jnp.float32), 0.0)
    following = jnp.pad(values[:, 1:], ((0, 0), (0, 1)))
    deltas = rewards + gamma * following - values

    def back(later: Float[Array, "answers"], now: tuple) -> tuple[Float[Array, "answers"], Float[Array, "answers"]]:
        delta, is_token = now
        advantage = jnp.where(is_token, delta + gamma * lambda_ * later, 0.0)
        return advantage, advantage

    # Time on the first axis, as scan wants it.
    start = jnp.zeros(rewards.shape[0], jnp.float32)
    _, advantages = jax.lax.scan(back, start, (deltas.T, inside.T), reverse=True)
    return jax.lax.stop_gradient((advantages.T, advantages.T + values))
