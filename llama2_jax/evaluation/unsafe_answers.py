"""How well the safety reward model's score finds unsafe answers, and which threshold it takes (section 3.2.3).

A high score is safe. An answer is called unsafe if the sigmoid of its score is below a threshold: there the piecewise
reward goes by the safety model. "Unsafe" is what is to be found: precision is the share of the answers called unsafe
that annotators labelled unsafe, recall the share of the answers labelled unsafe that are called so. Meta chose 0.15,
which had precision 0.89 and recall 0.55 on its safety test set; another model's scores need another threshold for that.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from llama2_jax.evaluation.binomial import binomial_error
from llama2_jax.evaluation.reward_calibration import score_histogram, sigmoid

# Of the curve of precision and recall.
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


def unsafe_detection(
    scores: Sequence[float], unsafe: Sequence[bool], threshold: float, wanted_precision: float
) -> dict:
    """Returns the precision and the recall of "unsafe" over thresholds.

    Args:
      scores: the safety model's scores (logits) of answers, [answers].
      unsafe: whether each is labelled unsafe, [answers].
      threshold: the configured one.
      wanted_precision: what `recalibrated` reaches.

    Returns:
      answers, unsafe: the numbers of answers and of unsafe ones among them.
      histogram: numbers of answers by the sigmoid of their score (`score_histogram`), `safe` and `unsafe` (figure 30).
      curve: `at_threshold` for each of THRESHOLDS.
      wanted_precision: as given.
      configured: `at_threshold` of the configured threshold.
      recalibrated: the same of the highest threshold, and so the one with the most recall, that reaches the wanted
        precision; None if none does. It is chosen on these answers, so new ones will have a little less precision.
    """
    probability, labels = sigmoid(scores), np.asarray(unsafe, bool)
    raw = np.asarray(scores, np.float64)
    recalibrated = _threshold_for(probability, labels, wanted_precision)
    return {
        "answers": len(labels),
        "unsafe": int(labels.sum()),
        "histogram": {"safe": score_histogram(raw[~labels]), "unsafe": score_histogram(raw[labels])},
        "curve": [at_threshold(probability, labels, one) for one in THRESHOLDS],
        "wanted_precision": wanted_precision,
        "configured": at_threshold(probability, labels, threshold),
        "recalibrated": None if recalibrated is None else at_threshold(probability, labels, recalibrated),
    }


def at_threshold(
    probability: Float[np.ndarray, " answers"], unsafe: Bool[np.ndarray, " answers"], threshold: float
) -> dict[str, float | int | None]:
    """Returns what calling the answers below a threshold unsafe finds.

    Args:
      probability: the sigmoids of their scores.
      unsafe: whether each is labelled unsafe.
      threshold: of the sigmoid; an answer at it is not called unsafe, as in the piecewise reward.

    Returns:
      The `threshold`, the number of answers `called_unsafe`, and `precision` and `recall` with their binomial standard
      errors, `..._standard_error`; None where no answer is called unsafe, or none is.
    """
    called = probability < threshold
    found = int((called & unsafe).sum())
    return {
        "threshold": float(threshold),
        "called_unsafe": int(called.sum()),
        **_share("precision", found, int(called.sum())),
        **_share("recall", found, int(unsafe.sum())),
    }


def _threshold_for(probability: np.ndarray, unsafe: np.ndarray, precision: float) -> float | None:
    """Returns the highest threshold, halfway between two answers' scores, with the precision."""
    order = np.argsort(probability, kind="stable")
    found = np.concatenate([[0], np.cumsum(unsafe[order])])
    scores = np.unique(probability)
    # How many answers are below each distinct score.
    below = np.searchsorted(probability[order], scores, side="left")
    enough = [index for index, count in enumerate(below) if count and found[count] / count >= precision]
    return float((scores[enough[-1] - 1] + scores[enough[-1]]) / 2) if enough else None


def _share(name: str, found: int, of: int) -> dict[str, float | None]:
    share = found / of if of else None
    error = None if share is None else binomial_error(share, of)
    return {name: share, f"{name}_standard_error": error}
