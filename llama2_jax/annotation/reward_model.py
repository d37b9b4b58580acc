"""Reward models as annotators, for runs without people; they are separate from the reward models that RLHF uses."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from jax.sharding import Mesh

from llama2_jax.data.content_hash import uniform
from llama2_jax.inference.score import rewards
from llama2_jax.training.model_folder import load_model

# The least probability of the preference, by the Bradley-Terry model of the scores, for each rating, strongest first.
RATING_THRESHOLDS = (("significantly_better", 0.90), ("better", 0.75), ("slightly_better", 0.60))


def annotate(
    comparisons: Sequence[Mapping],
    *,
    stage_seed: int,
    mesh: Mesh,
    annotator_helpfulness: epath.PathLike,
    annotator_safety: epath.PathLike,
    safe_above: float = 0.5,
    noise: bool = True,
) -> list[dict]:
    """Labels comparisons by the scores of two reward models.

    Args:
      comparisons: with prompt_tokens, tokens_a, tokens_b and domain ("helpfulness" or "safety").
      stage_seed: of the annotators' noise, which depends on it, the prompt and the two answers: not on the comparison's
        place in the list, nor on which answer is "a".
      mesh: the devices that the models are sharded over, one after the other.
      annotator_helpfulness, annotator_safety: the models' folders; trained on comparisons that no other model sees.
      safe_above: an answer is labelled safe if the sigmoid of its safety score is above it.
      noise: draws the preference from the Bradley-Terry model of the scores, since people differ; else the higher score
        is preferred.

    Returns:
      For each comparison preferred ("a" or "b"), rating, and safety ({"a": bool, "b": bool}; None for helpfulness).
    """
    if not comparisons:
        return []
    sequences = [[*row["prompt_tokens"], *row[f"tokens_{side}"]] for side in "ab" for row in comparisons]
    scores = {}
    for domain, folder in (("helpfulness", annotator_helpfulness), ("safety", annotator_safety)):
        scores[domain] = _scores(folder, mesh, sequences).reshape(2, len(comparisons))
    labels = []
    for index, row in enumerate(comparisons):
        a, b = scores[row["domain"]][:, index]
        probability = 1 / (1 + np.exp(-float(a - b)))
        prefers_a = (_draw(row, stage_seed) if noise else 0.5) <= probability
        labels.append({
            "preferred": "a" if prefers_a else "b",
            "rating": rating(probability if prefers_a else 1 - probability),
            "safety": _safety(scores["safety"][:, index], safe_above) if row["domain"] == "safety" else None,
        })  # fmt: skip
    return labels


def rank(
    rows: Sequence[Mapping],
    *,
    stage_seed: int,
    mesh: Mesh,
    annotator_helpfulness: epath.PathLike,
    annotator_safety: epath.PathLike,
    noise: bool = True,
) -> list[dict[str, list[int]]]:
    """Ranks the answers to each prompt by the scores of two reward models.

    Args:
      rows: with prompt_tokens, tokens (of each answer) and domain ("helpfulness" or "safety").
      stage_seed: of the annotators' noise, which depends on it, the prompt and the answer.
      mesh, annotator_helpfulness, annotator_safety: as for `annotate`.
      noise: draws the ranking from the Plackett-Luce model of the scores, under which each two answers are in the order
        that `annotate` draws for them, by the Bradley-Terry model; else they are ranked by their scores.

    Returns:
      For each row {"ranks"}, 1 for the best answer; only equal answers share a rank.
    """
    worth: list[list[float]] = [[] for _ in rows]
    for domain, folder in (("helpfulness", annotator_helpfulness), ("safety", annotator_safety)):
        asked = [(index, ids) for index, row in enumerate(rows) if row["domain"] == domain for ids in row["tokens"]]
        if not asked:
            continue
        scores = _scores(folder, mesh, [[*rows[index]["prompt_tokens"], *ids] for index, ids in asked])
        for (index, ids), score in zip(asked, scores.tolist(), strict=True):
            drawn = uniform("ranking", stage_seed, rows[index]["prompt_tokens"], ids)
            # Gumbel's noise: the larger of two scores with it is the Bradley-Terry model's.
            worth[index].append(score - math.log(-math.log(drawn)) if noise else score)
    return [{"ranks": [1 + sum(other > one for other in row) for one in row]} for row in worth]


def prefer_higher_reward(comparisons: Sequence[Mapping], *, reward: str = "combined") -> list[dict]:
    """Labels comparisons by the rewards that the answers already have (section 3.4.1: model-based evaluation).

    Args:
      comparisons: with `rewards_a` and `rewards_b`, as an evaluation wrote them.
      reward: which of them: "helpfulness", "safety" or "general", which are logits, or "combined", in (0, 1).

    Returns:
      For each comparison preferred ("a", "b", or "tie" where both are equal), rating, and safety, always None.

    Raises:
      ValueError: if an answer has no such reward.
    """
    labels = []
    for index, row in enumerate(comparisons):
        rewards_of = {side: (row.get(f"rewards_{side}") or {}) for side in "ab"}
        if missing := [side for side, found in rewards_of.items() if found.get(reward) is None]:
            known = sorted(rewards_of[missing[0]]) or "none"
            raise ValueError(f"comparison {index}: answer {missing[0]} has no reward {reward!r}; it has {known}")
        a, b = (_logit(found[reward]) if reward == "combined" else found[reward] for found in rewards_of.values())
        preferred = "tie" if a == b else "a" if a > b else "b"
        labels.append({"preferred": preferred, "rating": rating(1 / (1 + np.exp(-abs(a - b)))), "safety": None})
    return labels


def _logit(probability: float) -> float:
    """The logit, bounded where a probability is 0 or 1 in float32."""
    within = min(max(probability, 1e-9), 1 - 1e-9)
    return float(np.log(within / (1 - within)))


def _draw(row: Mapping, stage_seed: int) -> float:
    """Returns a number in (0, 1) for a comparison; if its answers change places, 1 minus that number."""
    first, second = sorted((row["tokens_a"], row["tokens_b"]))
    drawn = uniform("annotation", stage_seed, row["prompt_tokens"], first, second)
    return drawn if row["tokens_a"] == first else 1 - drawn


def _scores(folder: epath.PathLike, mesh: Mesh, sequences: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns the scores of one model, which is freed before the next one is loaded."""
    model = load_model(folder, mesh, "scalar")
    return rewards(model.config, model.params, sequences)


def rating(probability: float) -> str:
    """Returns the rating of a preference by its probability; an improbable preference gets the weakest one."""
    for name, threshold in RATING_THRESHOLDS:
        if probability >= threshold:
            return name
    return "negligibly_better"


def _safety(logits: np.ndarray, safe_above: float) -> dict[str, bool]:
    a, b = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return {"a": bool(a > safe_above), "b": bool(b > safe_above)}
