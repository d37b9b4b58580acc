"""Whether a judge that sees each pair in both orders goes by where an answer is shown."""

from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.agreement import gwet, ordinal_weights


def position_bias(labels: Sequence[Mapping]) -> float | None:
    """Returns how often the answer shown first is called better, of an annotator that sees each pair in both orders.

    Args:
      labels: with `by_order`, what is better with a shown first, and with b.

    Returns:
      Its share of the single judgements that are no tie: 0.5 without bias, 1 if only the first is ever preferred; None
      if no label tells.
    """
    single = [
        better == first
        for label in labels
        for first, better in zip("ab", label.get("by_order") or (), strict=False)
        if better in ("a", "b")
    ]
    return round(sum(single) / len(single), 4) if single else None


def order_agreement(labels: Sequence[Mapping]) -> float | None:
    """Returns how well the judgements of the two orders agree: Gwet's AC2, a tie between the two answers.

    Args:
      labels: with `by_order`, as for `position_bias`.
    """
    ratings = [label["by_order"] for label in labels if label.get("by_order")]
    return gwet(ratings, ("a", "tie", "b"), ordinal_weights(3))
