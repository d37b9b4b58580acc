"""Learning rates as plain functions of the number of steps already done."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def cosine(peak: float, steps: int, warmup: int, final_fraction: float) -> Schedule:
    """Returns a linear warm-up to the peak, then a cosine to `final_fraction * peak` (section 2.2: 2000 steps, 10 %).

    Step 0 is the first. Step s of the warm-up has `peak * (s + 1) / warmup`, so no step is spent at a rate of 0; the
    peak is reached at step warmup - 1, the cosine begins at step warmup (still the peak) and ends, at exactly the
    final rate, with the last step, steps - 1. After that the rate stays constant.

    Raises:
      ValueError: if the warm-up is longer than the training.
    """
    if not 0 <= warmup <= steps:
        raise ValueError(f"warmup={warmup} must be between 0 and steps={steps}: shorten it or train longer")
    final = final_fraction * peak

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
        return final + (peak - final) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return rate
