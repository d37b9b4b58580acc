"""What sampling more answers brings: the expected best and median reward among N of K answers (figures 7 and 8).

The mean over all subsets of N answers, not the first N of them: every answer counts at every N. The j-th smallest of N
answers, drawn without replacement from K whose rewards are sorted, is the i-th (i = 1 ... K) with the probability

    C(i - 1, j - 1) C(K - i, N - j) / C(K, N).

This is unbiased for every distribution of rewards; for the best (j = N) it is the estimate of pass@k by Chen et al.
(2021), for rewards instead of right and wrong.
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from llama2_jax.evaluation.paired import mean_and_error


def expected_best(rewards: Float[np.ndarray, "prompts K"], n: int) -> Float[np.ndarray, " prompts"]:
    """Returns for each prompt the expected best reward among n of its answers; see `best_of_curve` for what counts.

    Raises:
      ValueError: if n is not 1 ... K.
    """
    return _expected(rewards, n, (n,))


def expected_median(rewards: Float[np.ndarray, "prompts K"], n: int) -> Float[np.ndarray, " prompts"]:
    """Returns for each prompt the expected median among n of its rewards; of an even n, the mean of the middle two.

    Raises:
      ValueError: if n is not 1 ... K.
    """
    return _expected(rewards, n, ((n + 1) // 2, n // 2 + 1))


def best_of_curve(rewards: Float[np.ndarray, "prompts K"]) -> Mapping[str, list[float | None]]:
    """Returns the curves of figure 7, a list over N = 1 ... K each.

    `max` and `median` are means over prompts of what is expected of N answers, `gain` is their difference, the
    potential gain of choosing the best. `<name>_standard_error` is over prompts, that of the gain in pairs; None for
    one prompt.

    Args:
      rewards: what is not finite (an unfinished answer's) counts as 0, the lowest reward.
    """
    counts = range(1, rewards.shape[1] + 1)
    best, median = ([of(rewards, n) for n in counts] for of in (expected_best, expected_median))
    gain = [high - middle for high, middle in zip(best, median, strict=True)]
    curves = {}
    for name, values in (("max", best), ("median", median), ("gain", gain)):
        means, errors = zip(*map(mean_and_error, values), strict=True)
        curves |= {name: list(means), f"{name}_standard_error": list(errors)}
    return curves


def _expected(rewards: Float[np.ndarray, "prompts K"], n: int, ranks: tuple[int, ...]) -> Float[np.ndarray, " prompts"]:
    """The mean of the n answers' rewards of these ranks, 1 the lowest, expected over all subsets."""
    total = rewards.shape[1]
    if not 1 <= n <= total:
        raise ValueError(f"n={n} of {total} answers: give 1 to {total}")
    # Whole numbers up to the division: binomials of 100 answers are beyond 64 bits.
    weights = [
        [math.comb(i, rank - 1) * math.comb(total - 1 - i, n - rank) / math.comb(total, n) for i in range(total)]
        for rank in ranks
    ]
    return np.sort(np.where(np.isfinite(rewards), rewards, 0.0), axis=1) @ np.mean(weights, axis=0)
