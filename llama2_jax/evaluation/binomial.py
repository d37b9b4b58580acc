"""The standard error and the interval of a share that was counted."""

import math
from collections.abc import Sequence

# Of the normal distribution, 95 % are within so many standard deviations.
Z_95 = 1.959964


def binomial_error(share: float, count: int) -> float:
    """Returns the standard error of a share (0 to 1) of `count` independent cases."""
    return math.sqrt(share * (1 - share) / count)


def wilson_interval(found: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share, `found` of `count` cases (Wilson 1927).

    Unlike the share with its standard error on both sides it stays within 0 and 1, and has a length at these.

    Raises:
      ValueError: if there is no case.
    """
    if count < 1:
        raise ValueError(f"{count} cases: wanted one at least")
    share, square = found / count, Z_95**2 / count
    middle = (share + square / 2) / (1 + square)
    half = Z_95 * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    # Exact at the ends, where float error would leave a little.
    return (middle - half if found else 0.0), (middle + half if found < count else 1.0)


def counted_share(flags: Sequence[bool]) -> dict[str, float | list[float]]:
    """Returns the `share` of flags that are true, 0 to 1, and its 95 % `interval`.

    Raises:
      ValueError: if there is no flag.
    """
    interval = wilson_interval(sum(flags), len(flags))
    return {"share": sum(flags) / len(flags), "interval": list(interval)}
