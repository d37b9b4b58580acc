"""What safety preprompts do to the safety score of answers: generic ones and answer templates (figure 16)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from llama2_jax.evaluation.paired import paired_difference
from llama2_jax.evaluation.reward_calibration import score_histogram, sigmoid
from llama2_jax.evaluation.safety_summary import share

# Of the score without a preprompt (figure 16b).
BINS = 5


@dataclasses.dataclass(frozen=True)
class PrepromptAnswer:
    """An answer under a safety preprompt beside the one without it.

    Attributes:
      prompt: the prompt's index; a prompt may be answered under preprompts of both kinds.
      category: the prompt's.
      kind: "generic" or "template".
      finished: whether the answer under the preprompt ended.
      before, after: the safety model's scores (logits) of the answers without the preprompt and under it.
    """

    prompt: int
    category: str
    kind: str
    finished: bool
    before: float
    after: float

    @property
    def kept(self) -> bool:
        """Whether it is one to learn from: the safety model prefers it (section 4.2.4)."""
        return self.finished and self.after > self.before


def preprompt_gains(answers: Sequence[PrepromptAnswer]) -> dict[str, dict]:
    """Returns how the kinds of preprompts change safety scores, as sigmoids.

    Returns:
      kinds: `gains_of` the answers of each kind that there is.
      categories: the same within each category, in the order of the answers: {category: {kind: ...}}.
      template_minus_generic: on the prompts answered under both, the `mean` difference of their scores, its
        `standard_error`, and the number of `prompts`.
    """
    categories = dict.fromkeys(answer.category for answer in answers)
    return {
        "kinds": _by_kind(answers),
        "categories": {name: _by_kind([one for one in answers if one.category == name]) for name in categories},
        "template_minus_generic": _template_minus_generic(answers),
    }


def gains_of(answers: Sequence[PrepromptAnswer]) -> dict:
    """Returns what answers under preprompts gain.

    Returns:
      prompts: their number.
      before, after: the `mean` and the `median` of the scores and a `histogram` of 20 bins, without and with preprompt.
      gain: the `mean` of after - before and its paired `standard_error`; None for a single answer.
      kept: the share that is kept, with `count`, `of` and `standard_error`.
      by_score_before: for each of five bins of the score without a preprompt that has answers, the number of `answers`,
        the mean score `before`, the mean `gain` and its `standard_error`.
    """
    before, after = (sigmoid([getattr(one, name) for one in answers]) for name in ("before", "after"))
    place = np.minimum((before * BINS).astype(int), BINS - 1)
    return {
        "prompts": len(answers),
        "before": _distribution([one.before for one in answers]),
        "after": _distribution([one.after for one in answers]),
        "gain": _paired(after, before),
        "kept": share(sum(one.kept for one in answers), len(answers)),
        "by_score_before": [_gain_in_bin(before[place == one], after[place == one]) for one in np.unique(place)],
    }


def _by_kind(answers: Sequence[PrepromptAnswer]) -> dict[str, dict]:
    return {
        kind: gains_of(of_kind)
        for kind in ("generic", "template")
        if (of_kind := [one for one in answers if one.kind == kind])
    }


def _template_minus_generic(answers: Sequence[PrepromptAnswer]) -> dict[str, float | int | None]:
    scores = {kind: {one.prompt: one.after for one in answers if one.kind == kind} for kind in ("template", "generic")}
    both = sorted(scores["template"].keys() & scores["generic"].keys())
    if not both:
        return {"mean": None, "standard_error": None, "prompts": 0}
    template, generic = (sigmoid([scores[kind][prompt] for prompt in both]) for kind in ("template", "generic"))
    return {**_paired(template, generic), "prompts": len(both)}


def _distribution(scores: Sequence[float]) -> dict:
    probability = sigmoid(scores)
    return {
        "mean": float(probability.mean()),
        "median": float(np.median(probability)),
        "histogram": score_histogram(scores),
    }


def _gain_in_bin(before: np.ndarray, after: np.ndarray) -> dict:
    gain = _paired(after, before)
    return {
        "answers": len(before),
        "before": float(before.mean()),
        "gain": gain["mean"],
        "standard_error": gain["standard_error"],
    }


def _paired(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float | None]:
    mean, error = paired_difference(ours, theirs)
    return {"mean": mean, "standard_error": error}
