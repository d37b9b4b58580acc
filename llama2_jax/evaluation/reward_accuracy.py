"""How often a reward model prefers what the annotators preferred, by rating (tables 7 and 8)."""

from collections.abc import Sequence

import numpy as np

from llama2_jax.data.records import RATINGS
from llama2_jax.evaluation.binomial import binomial_error

# What accuracies are reported for: the pairs of each rating, and all pairs.
GROUPS = (*RATINGS, "all")


def accuracy_by_rating(
    chosen: Sequence[float], rejected: Sequence[float], ratings: Sequence[str]
) -> dict[str, dict[str, float | int | None]]:
    """Returns the accuracy over the pairs of each rating and over all pairs.

    Args:
      chosen: scores of the preferred answers, [pairs].
      rejected: scores of the rejected answers, [pairs].
      ratings: one of RATINGS per pair, or "" where a comparison has none (counted in "all" only).

    Returns:
      For each of GROUPS: `accuracy` (a tie counts half; None without pairs), its binomial `standard_error`, and the
      number of `pairs`.

    Raises:
      ValueError: if the three do not have the same length.
    """
    if not len(chosen) == len(rejected) == len(ratings):
        raise ValueError(f"{len(chosen)} chosen scores, {len(rejected)} rejected scores and {len(ratings)} ratings")
    correct = _correct(chosen, rejected)
    table = {}
    for name in GROUPS:
        selected = correct if name == "all" else correct[np.asarray([rating == name for rating in ratings], bool)]
        table[name] = _accuracy(selected)
    return table


def accuracy_by_group(
    chosen: Sequence[float], rejected: Sequence[float], groups: Sequence[str]
) -> dict[str, dict[str, float | int | None]]:
    """Returns the accuracy over the pairs of each group, such as those of one model's answers.

    Args:
      chosen, rejected: scores of the preferred and of the rejected answers, [pairs].
      groups: each pair's; pairs of the group "" are left out.

    Returns:
      For each group, in the order in which they occur, as `accuracy_by_rating`.
    """
    correct = _correct(chosen, rejected)
    names = dict.fromkeys(group for group in groups if group)
    return {name: _accuracy(correct[np.asarray([group == name for group in groups], bool)]) for name in names}


def _correct(chosen: Sequence[float], rejected: Sequence[float]) -> np.ndarray:
    """Returns 1 for each pair that is ranked right, 0 for one ranked wrong, and a half for a tie."""
    difference = np.asarray(chosen, np.float64) - np.asarray(rejected, np.float64)
    return np.where(difference == 0, 0.5, difference > 0)


def _accuracy(correct: np.ndarray) -> dict[str, float | int | None]:
    pairs = len(correct)
    if not pairs:
        return {"accuracy": None, "standard_error": None, "pairs": 0}
    accuracy = float(correct.mean())
    return {"accuracy": accuracy, "standard_error": binomial_error(accuracy, pairs), "pairs": pairs}
