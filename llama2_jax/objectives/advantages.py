"""Advantages of sampled tokens: by a critic (generalised advantage estimation), or within a group of answers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from llama2_jax.objectives.rewards import whiten

# By whose deviation advantages within a group are divided: the group's own, or that of all answers of an iteration.
SCALES = ("group", "batch")


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
        next_advantage: Float[Array, " answers"], inputs: tuple
    ) -> tuple[Float[Array, " answers"], Float[Array, " answers"]]:
        delta, is_token = inputs
        advantage = jnp.where(is_token, delta + gamma * lambda_ * next_advantage, 0.0)
        return advantage, advantage

    # scan runs over the first axis, so time comes first.
    start = jnp.zeros(rewards.shape[0], jnp.float32)
    _, advantages = jax.lax.scan(step, start, (deltas.T, mask.T), reverse=True)
    return jax.lax.stop_gradient((advantages.T, advantages.T + values))


def group_advantages(
    rewards: Float[Array, " answers"], mask: Shaped[Array, "answers length"], group_size: int, scale: str = "group"
) -> Float[Array, "answers length"]:
    """Returns the advantages of the answers' tokens without a critic (GRPO: Shao et al. 2024, section 4.1.2).

        A_(i, t) = (r_i - mean(r_1 .. r_G)) / std(r_1 .. r_G)

    The other answers to the prompt say what is to be expected of it, and all tokens of an answer share its advantage.
    The variance divides by G, as `whiten` has it. Where all answers of a group have the same reward none of them
    teaches anything: their advantages are 0, up to rounding.

    Divided by its own deviation a group of nearly equal rewards counts as much as one that holds the best and the worst
    of answers. With `scale` = "batch" what is left of the group's mean is divided by its deviation over all answers.

    Args:
      rewards: of each answer; a prompt's `group_size` answers are neighbours.
      mask: the answers' tokens.
      group_size: G, at least 2.
      scale: one of SCALES.

    Returns:
      Float32, 0 outside the mask; constants, through which no gradient flows.

    Raises:
      ValueError: if the answers cannot be divided into groups of at least two, or the scale is unknown.
    """
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r}: choose one of {', '.join(SCALES)}")
    if group_size < 2 or rewards.shape[0] % group_size:
        raise ValueError(
            f"{rewards.shape[0]} answers cannot be divided into groups of {group_size}; wanted groups of at least 2, "
            "each with all answers to a prompt"
        )
    groups = jnp.asarray(rewards).reshape(-1, group_size)
    everything = jnp.ones(groups.shape, bool)
    if scale == "batch":
        advantages = whiten(groups - jnp.mean(groups, axis=1, keepdims=True), everything)
    else:
        advantages = jax.vmap(whiten)(groups, everything)
    return jax.lax.stop_gradient(jnp.where(mask.astype(bool), advantages.reshape(-1, 1), 0.0))
