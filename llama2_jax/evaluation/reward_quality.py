"""Whether rewards go with the quality of the answers, as a judge sees it (figure 29).

The newest reward models score all versions' answers: the helpfulness model is compared with the judge's `helpfulness`
on harmless prompts, the safety model with its `safety` on adversarial ones. A correlation over all prompts may come
from the prompts: it is high for a model that knows which requests are easy and cannot tell a good answer from a bad
one. So it is given within each category of prompts too, and for pairs of answers to one prompt, between which best-of-N
and PPO choose.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from llama2_jax.evaluation.measures import PROMPTS
from llama2_jax.evaluation.rank_correlation import rank_correlation
from llama2_jax.evaluation.reward_calibration import sigmoid

# Each reward model, also the field of the verdicts that it should go with, and the prompts that it is compared on.
COMPARED_ON = {"helpfulness": "harmless", "safety": "adversarial"}
# As many as the steps of the raters' scale in figure 29.
BINS = 7


class _Point(NamedTuple):
    """An answer: its version, its prompt's index and category, its quality and its reward in (0, 1)."""

    version: str
    prompt: int
    category: str
    quality: float
    reward: float


def reward_quality(
    prompts: Sequence[Mapping],
    rewards: Mapping[str, Sequence[Mapping]],
    verdicts: Mapping[str, Sequence[Mapping | None]],
) -> dict[str, dict | None]:
    """Returns for each of the two reward models how its scores go with the judge's verdicts on the same answers.

    Args:
      prompts: records with `safety` and, where known, `category` and `seen`; seen ones are left out.
      rewards: for each version, `helpfulness` and `safety` of its answer to each prompt (logits).
      verdicts: for each version, the judge's verdict on each of them.

    Returns:
      For "helpfulness" and "safety" None if no verdict has the field, else

      prompts: which they are over, a key of PROMPTS.
      answers, rank_correlation: over all versions' answers.
      bins: of the quality, by `bins_of`.
      versions, categories: {name: {answers, rank_correlation}} for each version, and for each category of prompts.
      within_categories: the mean of the categories' correlations, weighted by their answers.
      same_prompt: of the `pairs` of versions' answers to one prompt whose quality differs, the share `right`: where the
        better one has the higher reward (a tie counts half).
    """
    return {kind: _compared(kind, prompts, rewards, verdicts) for kind in COMPARED_ON}


def bins_of(quality: Sequence[float], reward: Sequence[float], bins: int = BINS) -> list[dict]:
    """Returns the mean reward in bins of quality (figure 29).

    Args:
      quality, reward: of each answer.
      bins: of equal width, from the least to the largest quality.

    Returns:
      For each bin that has answers `from` and `to`, the number of `answers`, their mean `quality` and mean `reward`,
      and the `standard_error` of the latter; None for a single answer.
    """
    quality, reward = np.asarray(quality, np.float64), np.asarray(reward, np.float64)
    edges = np.linspace(quality.min(), quality.max(), bins + 1)
    place = np.clip(np.searchsorted(edges, quality, side="right") - 1, 0, bins - 1)
    return [
        {
            "from": float(edges[index]),
            "to": float(edges[index + 1]),
            "answers": int((place == index).sum()),
            "quality": float(quality[place == index].mean()),
            "reward": float(reward[place == index].mean()),
            "standard_error": _standard_error(reward[place == index]),
        }
        for index in np.unique(place)
    ]


def _compared(kind: str, prompts: Sequence[Mapping], rewards: Mapping, verdicts: Mapping) -> dict | None:
    points = _points(kind, prompts, rewards, verdicts)
    if not points:
        return None
    categories = _groups(points, "category")
    known = [group for group in categories.values() if group["rank_correlation"] is not None]
    answers = sum(group["answers"] for group in known)
    return {
        "prompts": COMPARED_ON[kind],
        **_correlated(points),
        "bins": bins_of([point.quality for point in points], [point.reward for point in points]),
        "versions": _groups(points, "version"),
        "categories": categories,
        "within_categories": (
            sum(group["answers"] * group["rank_correlation"] for group in known) / answers if answers else None
        ),
        "same_prompt": _same_prompt(points),
    }


def _points(kind: str, prompts: Sequence[Mapping], rewards: Mapping, verdicts: Mapping) -> list[_Point]:
    return [
        _Point(version, index, prompt.get("category", ""), float(verdict[kind]), float(sigmoid(reward[kind])))
        for version, of_version in rewards.items()
        for index, (prompt, reward, verdict) in enumerate(zip(prompts, of_version, verdicts[version], strict=True))
        if PROMPTS[COMPARED_ON[kind]](prompt) and not prompt.get("seen") and (verdict or {}).get(kind) is not None
    ]


def _groups(points: Sequence[_Point], field: str) -> dict[str, dict]:
    names = dict.fromkeys(getattr(point, field) for point in points)
    return {name: _correlated([point for point in points if getattr(point, field) == name]) for name in names if name}


def _correlated(points: Sequence[_Point]) -> dict[str, float | int | None]:
    correlation = rank_correlation([point.quality for point in points], [point.reward for point in points])
    return {"answers": len(points), "rank_correlation": correlation}


def _same_prompt(points: Sequence[_Point]) -> dict[str, float | int | None]:
    by_prompt: dict[int, list[_Point]] = {}
    for point in points:
        by_prompt.setdefault(point.prompt, []).append(point)
    agreement = [
        np.sign((one.quality - other.quality) * (one.reward - other.reward))
        for answers in by_prompt.values()
        for one, other in itertools.combinations(answers, 2)
        if one.quality != other.quality
    ]
    return {"pairs": len(agreement), "right": float((np.mean(agreement) + 1) / 2) if agreement else None}


def _standard_error(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
