"""How far two lists of numbers agree on the order, whatever their scales are."""

from collections.abc import Sequence

from scipy import stats


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Returns Spearman's rank correlation: 1 where both have the same order, -1 where they have opposite ones.

    Equal values share the mean of their ranks.

    Args:
      x, y: numbers, [n] each.

    Returns:
      The correlation; None where there is no order to compare: fewer than two numbers, or all of x or y equal.

    Raises:
      ValueError: if the two differ in length.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} and {len(y)} values: a correlation needs one of each for every item")
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return float(stats.spearmanr(x, y).statistic)
