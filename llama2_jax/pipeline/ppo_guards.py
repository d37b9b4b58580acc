"""What PPO checks while it runs: the sampler, the scorer, the training step and the reference agree on probabilities.

Sampling decodes with a cache, scoring and training read packed rows, so the same log-probabilities are computed by
different programs. They differ by rounding, or something is wrong: other weights, another temperature, a wrong mask.
The checks look at the mean of |difference| over tokens. The mean ratio would not do: its expectation over tokens of the
sampling policy is 1 for any other policy.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# The most that rounding may cause, in nats a token. Measured with the miniature's V5 on the CPU, sampler against scorer
# and training step against scorer: 1e-7 in float32 and 9e-4 in bfloat16; 80 layers of bfloat16 may come to a few 1e-2.
# Faults, in both dtypes: sampled at 0.95 for 1.0 0.010, at 0.5 0.063 (little, as the model is sure of most tokens:
# their entropy is 0.25 nats); V4's weights in V5's place 0.09, SFT's 0.34, the pretrained ones 1.8.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}


class Pair(NamedTuple):
    """Two computations of the same log-probabilities, and where to look if they differ."""

    names: str
    where_to_look: str


SAMPLER = Pair(
    "the sampler's and the scorer's",
    "answers must be sampled at config.temperature without a nucleus, and by the parameters that score them "
    "(pipeline/rollouts.py); decoding must see what scoring sees (inference/consolidation.py, models/decoding.py)",
)
REFERENCE = Pair(
    "the policy's and the reference's",
    "before the first step the policy and the reference are the same model, the stage's input `policy`",
)
TRAINING = Pair(
    "the training step's and the scorer's",
    "before the iteration's first step the parameters in training are those that sampled; the temperature is "
    "config.temperature (pipeline/ppo_steps.py), and each token's fields stand where it is predicted "
    "(`Rollouts.minibatch`)",
)


def mean_difference(
    one: Float[np.ndarray, "*tokens"], other: Float[np.ndarray, "*tokens"], mask: Float[np.ndarray, "*tokens"]
) -> float:
    """Returns the mean of |one - other| over the tokens of the mask; NaN if one of them is NaN."""
    return float(np.abs(np.asarray(one, np.float64) - other)[np.asarray(mask) > 0].mean())


def tolerance(compute_dtype: str, platform: str) -> float:
    """Returns the most that rounding may cause, in nats a token.

    Args:
      compute_dtype: the model's.
      platform: of the devices, such as "cpu". GPUs and TPUs multiply float32 matrices in TF32 or bfloat16 unless they
        are told otherwise, so there the bound of bfloat16 holds for both.
    """
    return TOLERANCE[compute_dtype if platform == "cpu" else "bfloat16"]


def check_agreement(pair: Pair, difference: float, bound: float, iteration: int) -> None:
    """Checks that two computations of the same log-probabilities agree.

    Args:
      pair: the two.
      difference: the mean over tokens of |log-probability - other log-probability|, in nats.
      bound: from `tolerance`.
      iteration: of PPO, for the message.

    Raises:
      AssertionError: if the difference is above the bound or NaN.
    """
    if not difference <= bound:
        raise AssertionError(
            f"PPO iteration {iteration}: {pair.names} log-probabilities of the sampled tokens differ by "
            f"{difference:.3g} nats a token on average; rounding explains at most {bound:g}. Look here: "
            f"{pair.where_to_look}."
        )
