"""The share of problems that at least one of k samples solves: pass@k (Chen et al. 2021, section 2.1)."""

import math


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Returns the unbiased estimate of pass@k for one problem: 1 - C(n - c, k) / C(n, k) (equation 1).

    It is the share of all choices of k samples that have a correct one among them. The numbers of choices are exact
    integers, so nothing overflows or cancels.

    Args:
      samples: n, the samples that were drawn.
      correct: c, those that passed the tests.
      k: samples that one is allowed.

    Raises:
      ValueError: if k < 1, or there are fewer samples than k or than correct ones, or correct < 0.
    """
    if k < 1:
        raise ValueError(f"pass@{k}: k is the number of samples that one is allowed, at least 1")
    if k > samples:
        raise ValueError(f"pass@{k} of {samples} samples: draw at least k samples for each problem")
    if not 0 <= correct <= samples:
        raise ValueError(f"{correct} correct samples of {samples}: wanted a number from 0 to {samples}")
    choices = math.comb(samples, k)
    return (choices - math.comb(samples - correct, k)) / choices
