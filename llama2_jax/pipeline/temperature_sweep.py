"""The sweep that chooses a round's sampling temperature (section 3.2.3, figure 8): on which prompts, and by what lead.

Every temperature answers the same prompts, so the comparison is paired. A lead within its standard error is chance, and
leaves the round at the middle temperature.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from llama2_jax.data.content_hash import prompt_hash, uniform
from llama2_jax.evaluation.paired import paired_difference
from llama2_jax.pipeline.best_of_n import proportional_shares


def draw_sweep_prompts(records: Sequence[Mapping], count: int, seed: int) -> list[int]:
    """Returns the indices of `count` prompts (all if there are fewer), in order: from each source its share.

    Which ones depends on the seed and the prompts' content, not on their order.

    Args:
      records: of the prompts, with `messages` and, where they come from several, `source`.
      count: how many to draw.
      seed: the stage's.
    """
    sources: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        sources.setdefault(record.get("source", ""), []).append(index)
    groups = [sources[name] for name in sorted(sources)]
    drawn = []
    for group, share in zip(groups, proportional_shares([len(group) for group in groups], count), strict=True):
        order = {index: uniform("sweep", seed, prompt_hash(records[index]["messages"])) for index in group}
        drawn += sorted(group, key=order.get)[:share]
    return sorted(drawn)


def middle_temperature(temperatures: Sequence[float]) -> float:
    """Returns the middle one, the lower of two: the one that a sweep without a clear winner ends at."""
    return sorted(temperatures)[(len(temperatures) - 1) // 2]


def choose_temperature(rewards: Mapping[float, Float[np.ndarray, "prompts K"]]) -> tuple[float, dict[str, dict]]:
    """Chooses the temperature whose best answers have the highest mean reward, if it leads by more than chance.

    Args:
      rewards: for each temperature the rewards of K answers to each of the same prompts; what is not finite (an
        unfinished answer's) counts as 0, the lowest reward.

    Returns:
      The temperature: the one with the highest mean, or the middle one if the lead over it is at most one standard
      error of the paired difference. And for each temperature the `mean` over prompts of the best answer's reward, its
      `standard_error`, and `minus_middle` with `minus_middle_standard_error`, the paired difference to the middle one.
      A single prompt has no standard errors (None), and decides nothing.
    """
    best = {t: np.where(np.isfinite(of_prompt), of_prompt, 0.0).max(axis=1) for t, of_prompt in rewards.items()}
    middle = middle_temperature(tuple(rewards))
    table = {}
    for temperature, of_prompt in best.items():
        mean, error = paired_difference(of_prompt, np.zeros(len(of_prompt)))
        lead, lead_error = paired_difference(of_prompt, best[middle])
        table[str(temperature)] = {
            "mean": mean,
            "standard_error": error,
            "minus_middle": lead,
            "minus_middle_standard_error": lead_error,
        }
    highest = max(best, key=lambda temperature: best[temperature].mean())
    lead, error = (table[str(highest)][name] for name in ("minus_middle", "minus_middle_standard_error"))
    return (highest if error is not None and lead > error else middle), table
