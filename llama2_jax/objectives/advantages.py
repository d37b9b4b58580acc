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
    """Returns the advantages of the answers' tokens, and the critic's targets (Schulman et al. 2016).

        delta_t = r_t + gamma V_(t+1) - V_t
        A_t     = delta_t + gamma lambda A_(t+1)
        return_t = A_t + V_t

    After an answer's last token both V and A are 0: the answer has ended, by EOS or because it was cut off.

    Args:
      rewards: of each token (action).
      values: the critic's estimate before each token, of the rewards from that token on.
      mask: the answers' tokens: in each row one contiguous run, at any position.
      gamma: the discount. Not in the paper; 1 is customary for answers rewarded at their end.
      lambda_: between 0 (one step) and 1 (the full return). Not in the paper; 0.95 is customary.

    Returns:
      Advantages and returns in float32, 0 outside the mask; constants, through which no gradient flows.
    """
    mask = mask.astype(bool)
    rewards = jnp.where(mask, rewards.astype(jnp.float32), 0.0)
    values = jnp.where(mask, values.astype(jnp.float32), 0.0)
    next_values = jnp.pad(values[:, 1:], ((0, 0), (0, 1)))
    deltas = rewards + gamma * next_values - values

    def step(
        next_advantage: Float[Array, "answers"], inputs: tuple
    ) -> tuple[Float[Array, "answers"], Float[Array, "answers"]]:
        delta, is_token = inputs
        advantage = jnp.where(is_token, delta + gamma * lambda_ * next_advantage, 0.0)
        return advantage, advantage

    # scan runs over the first axis, so time comes first.
    start = jnp.zeros(rewards.shape[0], jnp.float32)
    _, advantages = jax.lax.scan(step, start, (deltas.T, mask.T), reverse=True)
    return jax.lax.stop_gradient((advantages.T, advantages.T + values))
