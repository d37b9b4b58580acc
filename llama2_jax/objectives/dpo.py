"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): comparisons train the policy itself.

Its optimum is that of the RLHF objective, reward - beta KL(policy || reference), for the reward model of equation 1 of
the Llama 2 paper: the policy is its own reward model, with the reward beta log(policy / reference) (their section 4).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

Scalar = Float[Array, ""]


class Pairs(NamedTuple):
    """A number for each answer of each comparison, such as its log-probability: the sum over its tokens, in nats.

    Attributes:
      chosen: of the preferred answers.
      rejected: of the other ones.
    """

    chosen: Float[Array, " pairs"]
    rejected: Float[Array, " pairs"]


def sum_over_answers(
    following: Float[Array, "rows length"],
    row: Int[Array, " answers"],
    last: Int[Array, " answers"],
    size: Int[Array, " answers"],
) -> Float[Array, " answers"]:
    """Returns the log-probability of each answer, the sum over its tokens, in nats.

    Args:
      following: at each token the log-probability of the token that follows it in the row.
      row, last: the row of each answer and the column of its last token, the EOS if it ended.
      size: the number of its tokens; 0 gives 0. A token precedes the first one.
    """
    # A gather and a sum of exact zeros: unlike differences of cumulative sums it loses no bits in long rows, and its
    # gradient adds only zeros where answers share a row, so that the order of additions cannot change it.
    columns = jnp.arange(following.shape[-1])
    predicting = (columns >= (last - size)[:, None]) & (columns < last[:, None])
    return jnp.sum(jnp.where(predicting, following[row], 0.0), axis=-1)


def implicit_rewards(policy: Pairs, reference: Pairs, beta: float) -> Pairs:
    """Returns beta (log policy - log reference) of each answer: what the policy takes for its reward (section 4).

    It is the reward up to a term of the prompt, which cancels out between the two answers.

    Args:
      policy, reference: log-probabilities of the answers under the two.
      beta: the weight of KL(policy || reference) in the objective, above 0; PPO's `kl_coefficient`.
    """
    return Pairs(*(beta * (one - other) for one, other in zip(policy, reference, strict=True)))


def dpo_loss(rewards: Pairs, label_smoothing: float = 0.0) -> Float[Array, " pairs"]:
    """-log sigmoid(r_chosen - r_rejected) of each pair (equation 7); log 2 where the policy is the reference.

    Args:
      rewards: `implicit_rewards` of the pairs.
      label_smoothing: the share e of the comparisons whose answers are taken to be exchanged, from 0 to below 0.5:
        -(1 - e) log sigmoid(margin) - e log sigmoid(-margin) ("conservative DPO", Mitchell 2023). Above 0 the loss is
        least where the sigmoid of the margin is 1 - e, and not at infinity.
    """
    margin = rewards.chosen - rewards.rejected
    return (1.0 - label_smoothing) * jax.nn.softplus(-margin) + label_smoothing * jax.nn.softplus(margin)


def mean_dpo_loss(
    policy: Pairs,
    reference: Pairs,
    mask: Shaped[Array, " pairs"],
    denominator: Scalar,
    beta: float,
    label_smoothing: float = 0.0,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Returns the loss of a batch and its metrics, as sums over the real pairs divided by the denominator.

    Args:
      policy, reference, beta: see `implicit_rewards`.
      mask: 1 for each real pair; others are ignored.
      denominator: the number of real pairs of the whole batch, of which these may be a microbatch: the results of
        microbatches add up.
      label_smoothing: see `dpo_loss`.

    Returns:
      The loss, and as means over the pairs `chosen_reward` and `rejected_reward`, the implicit rewards; `margin`,
      their difference; `accuracy`, how often the chosen answer has the higher one (a tie counts half); and
      `chosen_log_ratio`, log(policy / reference) of the chosen answer in nats: below 0 the policy gives what was
      preferred less probability than the reference does.
    """
    rewards = implicit_rewards(policy, reference, beta)
    margin = rewards.chosen - rewards.rejected

    def mean(x: Float[Array, " pairs"]) -> Scalar:
        return jnp.sum(jnp.where(mask.astype(bool), x, 0.0)) / denominator

    metrics = {
        "chosen_reward": mean(rewards.chosen),
        "rejected_reward": mean(rewards.rejected),
        "margin": mean(margin),
        "accuracy": mean(0.5 * (1.0 + jnp.sign(margin))),
        "chosen_log_ratio": mean(policy.chosen - reference.chosen),
    }
    return mean(dpo_loss(rewards, label_smoothing)), metrics
