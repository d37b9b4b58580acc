"""The annotator of the miniature: compares or ranks answers by the truth, with noise (section 3.2.1)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from statistics import NormalDist

from llama2_jax.miniature.judge import Verdict, judge

# In comparisons for safety, helpfulness decides between answers that are about equally safe.
SAFETY_UTILITY = {"safety": 0.8, "helpfulness": 0.2}

# The least difference between two judgements for each rating. At the default noise, answers of a model that was only
# fine-tuned get the ratings of the paper's first batch: 18 / 28 / 30 / 25 % (Figure 25).
THRESHOLDS = {"significantly_better": 0.6, "better": 0.23, "slightly_better": 0.08, "negligibly_better": 0.0}
NOISE = 0.08

_NORMAL = NormalDist()


def annotate(
    comparisons: Sequence[Mapping],
    *,
    seed: int,
    noise: float = NOISE,
    safety_label_noise: float = 0.02,
    rater: int = 0,
    thresholds: Mapping[str, float] | None = None,
) -> list[dict]:
    """Compares pairs of answers, as a rater who knows the truth but whose judgement is noisy.

    The judgement of an answer depends on the dialogue, the answer, the rater and the seed, not on its position.

    Args:
      comparisons: records {"messages", "response_a", "response_b", "domain": "helpfulness" or "safety"}.
      seed: the world's seed.
      noise: standard deviation of the error of a judgement, in units of helpfulness (0 to 1).
      safety_label_noise: how often a safety label is wrong.
      rater: which of several raters; each has its own noise.
      thresholds: the least difference for each rating; the default is THRESHOLDS.

    Returns:
      For each comparison {"preferred": "a" or "b", "rating", "safety": {"a": bool, "b": bool}, or None outside the
      safety domain}; safe is true.

    Raises:
      ValueError: if the domain is unknown, or the dialogue is not of this world.
    """
    thresholds = thresholds or THRESHOLDS
    annotations = []
    for comparison in comparisons:
        messages, domain = comparison["messages"], comparison["domain"]
        context = json.dumps([seed, rater, domain, messages])
        opinions, safe = {}, {}
        for side in ("a", "b"):
            response = comparison[f"response_{side}"]
            verdict = judge(messages, response, seed=seed)
            opinions[side] = utility(verdict, domain) + noise * _normal(context, response)
            mistaken = _uniform(context, "label", response) < safety_label_noise
            safe[side] = verdict.violation == mistaken
        difference = opinions["a"] - opinions["b"]
        # Only equal answers get equal judgements; then a coin decides.
        a_wins = difference > 0 if difference else _uniform(context, "coin") < 0.5
        annotations.append(
            {
                "preferred": "a" if a_wins else "b",
                "rating": rate(abs(difference), thresholds),
                "safety": safe if domain == "safety" else None,
            }
        )
    return annotations


def rank(rows: Sequence[Mapping], *, seed: int, noise: float = NOISE, rater: int = 0) -> list[dict[str, list[int]]]:
    """Ranks the answers to each prompt, by the same noisy judgements as those of comparisons.

    Args:
      rows: records {"messages", "responses", "domain": "helpfulness" or "safety"}.
      seed: the world's seed.
      noise: standard deviation of the error of a judgement, in units of helpfulness (0 to 1).
      rater: which of several raters; each has its own noise.

    Returns:
      For each row {"ranks"}, 1 for the best answer; only equal answers share a rank.

    Raises:
      ValueError: if the domain is unknown, or the dialogue is not of this world.
    """
    rankings = []
    for row in rows:
        messages, domain = row["messages"], row["domain"]
        context = json.dumps([seed, rater, domain, messages])
        opinions = [
            utility(judge(messages, response, seed=seed), domain) + noise * _normal(context, response)
            for response in row["responses"]
        ]
        rankings.append({"ranks": [1 + sum(other > opinion for other in opinions) for opinion in opinions]})
    return rankings


def utility(verdict: Verdict, domain: str) -> float:
    """Returns the value of an answer in a domain: helpfulness; or mostly safety, and a little helpfulness."""
    if domain == "helpfulness":
        return verdict.helpfulness
    if domain == "safety":
        return SAFETY_UTILITY["safety"] * verdict.safety + SAFETY_UTILITY["helpfulness"] * verdict.helpfulness
    raise ValueError(f"domain is {domain!r}; the annotator compares 'helpfulness' or 'safety'")


def rate(difference: float, thresholds: Mapping[str, float]) -> str:
    """Returns the rating of the preferred answer by the absolute difference of the two judgements."""
    return next(rating for rating, least in thresholds.items() if difference >= least)


def _uniform(*parts: str) -> float:
    """Returns a number in (0, 1) that depends only on the texts."""
    digest = hashlib.blake2b("\x00".join(parts).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2.0**64


def _normal(*parts: str) -> float:
    return _NORMAL.inv_cdf(min(max(_uniform(*parts), 1e-12), 1 - 1e-12))
