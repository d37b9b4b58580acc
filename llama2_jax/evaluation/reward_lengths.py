"""Whether a reward model likes long answers, and more than the annotators do: the best-known way to please it."""

from collections.abc import Sequence

import numpy as np

from llama2_jax.evaluation.binomial import binomial_error
from llama2_jax.evaluation.rank_correlation import rank_correlation


def length_effects(
    chosen: Sequence[float],
    rejected: Sequence[float],
    chosen_length: Sequence[int],
    rejected_length: Sequence[int],
) -> dict:
    """Returns how scores go with the answers' lengths.

    Args:
      chosen, rejected: scores of the answers that annotators preferred and of the others, [pairs].
      chosen_length, rejected_length: the answers' lengths in tokens, [pairs].

    Returns:
      answers: their number, two a pair.
      score_correlation: the rank correlation of an answer's score with its length.
      difference_correlation: that of a pair's difference in score with its difference in length, each pair taken in
        both directions, so that it does not matter which answer is subtracted from which; prompts that call for long
        answers do not count here.
      pairs: the number of pairs of different length, which the two shares are over.
      longer_chosen, longer_scored_higher: how often annotators and the model prefer the longer answer (a tie of scores
        counts half), each with its standard error under `..._standard_error`; None without such pairs.
    """
    scores = np.asarray([chosen, rejected], np.float64)
    lengths = np.asarray([chosen_length, rejected_length], np.float64)
    by_score, by_length = scores[0] - scores[1], lengths[0] - lengths[1]
    different = by_length != 0
    agreement = np.sign(by_score[different]) * np.sign(by_length[different])
    return {
        "answers": scores.size,
        "score_correlation": rank_correlation(scores.ravel(), lengths.ravel()),
        "difference_correlation": rank_correlation(
            np.concatenate([by_score, -by_score]), np.concatenate([by_length, -by_length])
        ),
        "pairs": int(different.sum()),
        **_share("longer_chosen", (by_length[different] > 0).astype(float)),
        **_share("longer_scored_higher", (agreement + 1) / 2),
    }


def _share(name: str, values: np.ndarray) -> dict[str, float | None]:
    """Returns the mean of values from 0 to 1 and its standard error."""
    if not len(values):
        return {name: None, f"{name}_standard_error": None}
    share = float(values.mean())
    return {name: share, f"{name}_standard_error": binomial_error(share, len(values))}
