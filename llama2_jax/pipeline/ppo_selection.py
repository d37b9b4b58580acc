"""Which of PPO's policies may be kept: none that pays for its reward with what was good before.

A mean reward does not say whose it is. What is asked of a policy on prompts that are tagged as safety matters and on
others pulls apart, for where it has learnt neither, a small policy refuses more of all or less of all, and a reward
model may like that: it prefers a refusal to a wrong answer. And a reward that the reward models alone see is no gain
(evaluation/over_optimisation.py).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from llama2_jax.evaluation.over_optimisation import STANDARD_ERRORS, Rewards
from llama2_jax.evaluation.paired import paired_difference

# A policy in doubt is not kept, the one before it is at hand: a fall counts if it is more than so many of its standard
# errors. By chance alone the reward on tagged or on harmless prompts falls so far in 1 of 6 evaluations. The general
# reward has to fall as far as for the alarm: it tells less well than the others which of two near answers is better.
FALLS = {"tagged": 1.0, "harmless": 1.0, "answered": STANDARD_ERRORS, "general": STANDARD_ERRORS}


def what_fell(start: Rewards, now: Rewards, prompts: Sequence[Mapping]) -> list[str]:
    """Returns what has fallen since the start.

    It is the reward on "tagged" or on "harmless" prompts, the share of the harmless ones that are "answered" and not
    refused, or the "general" reward.

    Args:
      start, now: the rewards of two policies' answers to the held-out prompts.
      prompts: these, with `safety`.

    Returns:
      The names, in this order. The general reward is that on harmless prompts. What is not known cannot fall.
    """
    tagged, harmless = ((start.on(prompts, tagged=kind), now.on(prompts, tagged=kind)) for kind in (True, False))
    pairs = {
        "tagged": (tagged[0].optimised, tagged[1].optimised),
        "harmless": (harmless[0].optimised, harmless[1].optimised),
        "answered": (_answered(harmless[0]), _answered(harmless[1])),
        "general": (harmless[0].general, harmless[1].general),
    }
    return [name for name, (before, after) in pairs.items() if before and after and _fell(before, after, FALLS[name])]


def held_out_means(rewards: Rewards, prompts: Sequence[Mapping]) -> dict[str, float]:
    """Returns the metrics of an evaluation, means over the held-out prompts.

    They are the reward of all, of tagged and of harmless prompts, and of the harmless ones the share that is refused
    and the general reward. What there are no prompts for, or is not known, is left out.
    """
    tagged, harmless = (rewards.on(prompts, tagged=kind) for kind in (True, False))
    means = {
        "held_out_reward": rewards.optimised,
        "held_out_reward_tagged": tagged.optimised,
        "held_out_reward_harmless": harmless.optimised,
        "held_out_refusals": harmless.refused,
        "held_out_general_reward": harmless.general,
    }
    return {name: float(np.mean(values)) for name, values in means.items() if values}


def _answered(rewards: Rewards) -> list[float] | None:
    return rewards.refused and [1.0 - refused for refused in rewards.refused]


def _fell(before: Sequence[float], after: Sequence[float], standard_errors: float) -> bool:
    change, standard_error = paired_difference(after, before)
    return standard_error is not None and change < -standard_errors * standard_error
