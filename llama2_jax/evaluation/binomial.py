"""The standard error of a share that was counted."""

import math


def binomial_error(share: float, count: int) -> float:
    """Returns the standard error of a share (0 to 1) of `count` independent cases."""
    return math.sqrt(share * (1 - share) / count)
