"""What a reward model's scores of held-out comparisons say about it, beside its accuracy by rating (section 3.2.2)."""

import dataclasses
from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.reward_accuracy import accuracy_by_group
from llama2_jax.evaluation.reward_calibration import calibration, score_histogram
from llama2_jax.evaluation.reward_lengths import length_effects
from llama2_jax.evaluation.unsafe_answers import unsafe_detection


@dataclasses.dataclass(frozen=True)
class ScoredComparisons:
    """Comparisons of one domain with a reward model's scores.

    Attributes:
      records: of kind preferences, [pairs]; those of an annotation have `sources` and `preferred_version`.
      chosen, rejected: the scores (logits) of both answers, [pairs].
      chosen_length, rejected_length: the answers' lengths in tokens, [pairs].
      safe: whether the chosen and the rejected answer are safe; None without a label, [pairs].
    """

    records: Sequence[Mapping]
    chosen: Sequence[float]
    rejected: Sequence[float]
    chosen_length: Sequence[int]
    rejected_length: Sequence[int]
    safe: Sequence[tuple[bool, bool] | None]


def reward_test(scored: ScoredComparisons) -> dict:
    """Returns what every reward model is tested for.

    Returns:
      by_models: the accuracy on the answers of each two models that were compared, newest first (table 7 has it by
        data set); empty for comparisons that do not say whose answers they are.
      by_preferred: the accuracy where annotators preferred the newest version's answer, and where the earlier one's: a
        model that goes by the version's manner is good at the first alone.
      calibration: see reward_calibration.py.
      histogram: numbers of answers by the sigmoid of their score, `chosen` and `rejected` (figure 27).
      lengths: see reward_lengths.py.
    """
    chosen, rejected = scored.chosen, scored.rejected
    return {
        "by_models": accuracy_by_group(chosen, rejected, [_models(record) for record in scored.records]),
        "by_preferred": accuracy_by_group(
            chosen, rejected, [record.get("preferred_version") or "" for record in scored.records]
        ),
        "calibration": calibration(chosen, rejected),
        "histogram": {"chosen": score_histogram(chosen), "rejected": score_histogram(rejected)},
        "lengths": length_effects(chosen, rejected, scored.chosen_length, scored.rejected_length),
    }


def unsafe_test(scored: ScoredComparisons, threshold: float, wanted_precision: float) -> dict | None:
    """Returns how well a safety model's scores find the answers labelled unsafe (unsafe_answers.py).

    None if no comparison has a safety label, or all labelled answers are safe.
    """
    labelled = [
        (score, not is_safe)
        for chosen, rejected, safe in zip(scored.chosen, scored.rejected, scored.safe, strict=True)
        if safe is not None
        for score, is_safe in zip((chosen, rejected), safe, strict=True)
    ]
    if not any(unsafe for _, unsafe in labelled):
        return None
    scores, unsafe = zip(*labelled, strict=True)
    return unsafe_detection(scores, unsafe, threshold, wanted_precision)


def _models(record: Mapping) -> str:
    """Returns the names of the models that gave the answers; "" if the record does not say."""
    sources = record.get("sources")
    if not isinstance(sources, Mapping) or not all(isinstance(one, Mapping) for one in sources.values()):
        return ""
    names = [sources.get(version, {}).get("model") for version in ("newest", "earlier")]
    return " / ".join(names) if all(isinstance(name, str) for name in names) else ""
