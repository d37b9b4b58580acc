"""How well raters agree beyond chance: Gwet's AC1 and AC2 (section 3.4.2 has them for people's judgements)."""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float


def gwet(
    ratings: Sequence[Sequence[Hashable | None]],
    categories: Sequence[Hashable],
    weights: Float[np.ndarray, "categories categories"] | None = None,
) -> float | None:
    """Returns Gwet's coefficient: AC1, or with weights AC2, which counts near misses in part (Gwet 2014, chapter 4).

    Args:
      ratings: for each subject the category that each rater chose; None where one did not rate it. A subject that
        fewer than two rated counts for how often categories are chosen, not for agreement.
      categories: all that could be chosen, in order if there is one.
      weights: how far two ratings agree, 1 on the diagonal; by default only equal ones do. See `ordinal_weights`.

    Returns:
      1 for full agreement, 0 for as much as by chance; None if no subject has two ratings or there is one category.

    Raises:
      ValueError: if a rating is none of the categories.
    """
    place = {category: index for index, category in enumerate(categories)}
    unknown = {one for subject in ratings for one in subject if one is not None and one not in place}
    if unknown:
        raise ValueError(f"ratings {sorted(map(str, unknown))} are none of the categories {list(categories)}")
    count = len(categories)
    weights = np.eye(count) if weights is None else np.asarray(weights)
    counts = np.asarray([[list(subject).count(category) for category in categories] for subject in ratings], float)
    counts = counts.reshape(-1, count)
    raters = counts.sum(axis=1)
    rated, shared = counts[raters > 0], counts[raters > 1]
    if not len(shared) or count < 2:
        return None
    pairs = shared * (shared @ weights.T - 1)
    both = shared.sum(axis=1)
    agreed = float(np.mean(pairs.sum(axis=1) / (both * (both - 1))))
    chosen = (rated / rated.sum(axis=1, keepdims=True)).mean(axis=0)
    by_chance = float(weights.sum() / (count * (count - 1)) * np.sum(chosen * (1 - chosen)))
    return (agreed - by_chance) / (1 - by_chance)


def ordinal_weights(count: int) -> Float[np.ndarray, "count count"]:
    """Returns Gwet's ordinal weights of so many ordered categories: 1 less the pairs of categories that lie between."""
    distance = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    return 1 - distance * (distance + 1) / (count * (count - 1))
