"""Learning rates as plain functions of the number of steps already done."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
# By name, what is left of the way from the peak to the final rate after a part of the decay, 0 to 1.
DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
}


def decaying(decay: str, peak: float, steps: int, warmup: int, final_fraction: float) -> Schedule:
    """Returns a linear warm-up to the peak, then a decay to `final_fraction * peak`.

    Step 0 is the first. Step s of the warm-up has `peak * (s + 1) / warmup`, so no step is spent at a rate of 0; the
    peak is reached at step warmup - 1, the decay begins at step warmup (still the peak) and ends, at exactly the
    final rate, with the last step, steps - 1. After that the rate stays constant.

    Args:
      decay: "cosine" (section 2.2: 2000 steps of warm-up, 10 %) or "linear" (LIMA, section 3: none, 10 %).
      peak, steps, warmup, final_fraction: as above.

    Raises:
      ValueError: if the warm-up is longer than the training, or the decay is unknown.
    """
    if decay not in DECAYS:
        raise ValueError(f"decay={decay!r}: choose one of {', '.join(DECAYS)}")
    if not 0 <= warmup <= steps:
        raise ValueError(f"warmup={warmup} must be between 0 and steps={steps}: shorten it or train longer")
    final, left = final_fraction * peak, DECAYS[decay]

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
        return final + (peak - final) * left(progress)

    return rate


def cosine(peak: float, steps: int, warmup: int, final_fraction: float) -> Schedule:
    """Returns `decaying` along a cosine, that of pretraining (section 2.2)."""
    return decaying("cosine", peak, steps, warmup, final_fraction)
