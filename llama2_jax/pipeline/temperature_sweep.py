"""The sweep that chooses a round's sampling temperature (section 3.2.3, figure 8): on which prompts, and by what lead.

Every temperature answers the same prompts, so the comparison is paired. Of five temperatures that are equal, one leads
over the middle one by more than a standard error in 37% of sweeps, of three in 25%. So a lead has to be larger than
chance would give any of them, except at a chosen rate of errors; else the round stays at the middle temperature.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float

from llama2_jax.data.content_hash import prompt_hash, uniform
from llama2_jax.evaluation.best_of_curve import expected_best
from llama2_jax.evaluation.paired import mean_and_error, paired_difference
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


def needed_standard_errors(prompts: int, temperatures: int, error_rate: float) -> float | None:
    """Returns how many standard errors a lead over the middle temperature must have not to be chance.

    Student's one-sided test of paired differences, with Bonferroni's bound for several: if all temperatures are equal,
    the chance that any of the others leads by more is at most `error_rate`.

    Args:
      prompts: that every temperature has answered; a single one tells nothing (None).
      temperatures: how many there are, the middle one among them; one alone has no lead (None).
      error_rate: in (0, 1).
    """
    if prompts < 2 or temperatures < 2:
        return None
    return float(scipy.stats.t.isf(error_rate / (temperatures - 1), prompts - 1))


def choose_temperature(
    rewards: Mapping[float, Float[np.ndarray, "prompts K"]], answers: int, error_rate: float
) -> tuple[float, dict[str, dict]]:
    """Chooses the temperature whose best answers have the highest mean reward, if it leads by more than chance.

    Args:
      rewards: for each temperature the rewards of K answers to each of the same prompts; what is not finite (an
        unfinished answer's) counts as 0, the lowest reward.
      answers: the round keeps the best of so many, at most K; what is compared is the best that is expected of them.
      error_rate: how often the middle temperature is left at most, if all are equal.

    Returns:
      The temperature: of those that lead over the middle one by more than `needed_standard_errors` the one with the
      highest mean, else the middle one. And for each temperature the `mean` over prompts of the best answer's reward,
      its `standard_error`, and `minus_middle` with `minus_middle_standard_error`, the paired difference to the middle
      one. A single prompt has no standard errors (None), and decides nothing.
    """
    best = {temperature: expected_best(of_prompts, answers) for temperature, of_prompts in rewards.items()}
    middle = middle_temperature(tuple(rewards))
    needed = needed_standard_errors(len(best[middle]), len(best), error_rate)
    table, ahead = {}, [middle]
    for temperature, of_prompt in best.items():
        mean, error = mean_and_error(of_prompt)
        lead, lead_error = paired_difference(of_prompt, best[middle])
        table[str(temperature)] = {
            "mean": mean,
            "standard_error": error,
            "minus_middle": lead,
            "minus_middle_standard_error": lead_error,
        }
        if needed is not None and lead > needed * lead_error and lead > 0:
            ahead.append(temperature)
    return max(ahead, key=lambda temperature: best[temperature].mean()), table
