"""The mean of paired differences, such as two policies' rewards on the same prompts, and how far chance may move it."""

import math
from collections.abc import Sequence

import numpy as np


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean of ours - theirs and its standard error; None for a single pair.

    What both have in common, such as an easy prompt, is in neither: with correlated values the error is far below that
    of two independent means.

    Raises:
      ValueError: if the two differ in length or are empty.
    """
    if len(ours) != len(theirs) or not len(ours):
        raise ValueError(f"{len(ours)} and {len(theirs)} values cannot be paired: give one of each for every pair")
    return mean_and_error(np.asarray(ours, float) - np.asarray(theirs, float))


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean of values and its standard error; None for a single value."""
    array = np.asarray(values, float)
    error = float(array.std(ddof=1)) / math.sqrt(len(array)) if len(array) > 1 else None
    return float(array.mean()), error
