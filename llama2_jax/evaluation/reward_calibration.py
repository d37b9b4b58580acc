"""Whether a reward model's differences mean the probabilities that they claim (section 3.2.2, equation 1).

Under the ranking loss a difference d of two scores claims that the higher one is preferred with probability sigmoid(d).
Scores are used beyond their order: PPO and best-of-N go by how much larger a reward is. A margin in the loss drives
scores apart and so makes a model claim more than it keeps (figure 27).
"""

from collections.abc import Sequence

import numpy as np

from llama2_jax.evaluation.binomial import binomial_error

# Of the probability claimed for the answer that the model prefers; as differences 0, 0.41, 0.85, 1.39, 2.20 and above.
CLAIMS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def calibration(chosen: Sequence[float], rejected: Sequence[float]) -> dict:
    """Returns how often a model is right where it claims to be so sure.

    Args:
      chosen, rejected: scores (logits) of the answers that annotators preferred and of the others, [pairs].

    Returns:
      pairs: their number.
      bins: for each bin of the claimed probability that has pairs, `from` and `to`, the number of `pairs`, the mean
        probability that they `claimed`, the share that was `right` (a tie counts half) and its `standard_error`.
      expected_calibration_error: the mean over pairs of |claimed - right| of their bins; None without pairs. Chance
        alone makes it positive, the more the fewer pairs there are.
    """
    difference = np.asarray(chosen, np.float64) - np.asarray(rejected, np.float64)
    claimed = sigmoid(np.abs(difference))
    right = np.where(difference == 0, 0.5, difference > 0)
    place = np.clip(np.searchsorted(CLAIMS, claimed, side="right") - 1, 0, len(CLAIMS) - 2)
    bins = [
        _bin(CLAIMS[index], CLAIMS[index + 1], claimed[place == index], right[place == index])
        for index in np.unique(place)
    ]
    pairs = len(difference)
    error = sum(one["pairs"] * abs(one["claimed"] - one["right"]) for one in bins) / pairs if pairs else None
    return {"pairs": pairs, "expected_calibration_error": error, "bins": bins}


def score_histogram(scores: Sequence[float], bins: int = 20) -> list[int]:
    """Returns how many of the scores' sigmoids lie in each of the bins of equal width from 0 to 1 (figure 27)."""
    counts, _ = np.histogram(sigmoid(scores), bins=bins, range=(0.0, 1.0))
    return counts.tolist()


def sigmoid(scores: Sequence[float]) -> np.ndarray:
    """Returns the sigmoid of each score, in float64; it does not overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(scores, np.float64)))


def _bin(low: float, high: float, claimed: np.ndarray, right: np.ndarray) -> dict:
    share = float(right.mean())
    return {
        "from": low,
        "to": high,
        "pairs": len(right),
        "claimed": float(claimed.mean()),
        "right": share,
        "standard_error": binomial_error(share, len(right)),
    }
