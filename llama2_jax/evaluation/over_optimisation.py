"""The alarm of over-optimisation (section 3.4.1): the optimised reward rises while a general one falls.

A policy that exploits the reward it is trained on goes on raising it while its answers get worse. A general reward
model, trained on open comparisons alone and used in no training of a policy, shares few of the mistakes that are
exploited: where the two part, the gain is no longer one in quality.

The two are compared on prompts that are not tagged as safety matters. One model of open comparisons is a poor judge of
refusals, the reason why the paper has two reward models (section 3.2.2), and false refusals show on the other prompts.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from llama2_jax.evaluation.paired import paired_difference

# A change counts if it is more than so many of its standard errors: chance alone reaches that in 1 of 40 samples, on
# either side.
STANDARD_ERRORS = 1.96


class Rewards(NamedTuple):
    """Two rewards of a policy's answers to the same n prompts, and which of the answers refuse.

    Attributes:
      optimised: the reward that the policy is trained for, [n].
      general: the general reward model's, [n]; None if there is no such model.
      refused: whether each answer refuses (evaluation/refusals.py), [n]; None if nobody looked.
    """

    optimised: Sequence[float]
    general: Sequence[float] | None
    refused: Sequence[bool] | None = None

    def harmless(self, prompts: Sequence[Mapping]) -> "Rewards":
        """Returns the rewards on the prompts that are not tagged as safety matters, by which the two are compared."""
        return self.on(prompts, tagged=False)

    def on(self, prompts: Sequence[Mapping], *, tagged: bool) -> "Rewards":
        """Returns the rewards on the prompts that are tagged as safety matters, or on those that are not."""
        kept = [index for index, prompt in enumerate(prompts) if bool(prompt["safety"]) == tagged]
        return Rewards(*(None if values is None else [values[index] for index in kept] for values in self))


@dataclasses.dataclass(frozen=True)
class RewardChanges:
    """How both rewards changed from one policy to another, over the same prompts.

    Attributes:
      prompts: their number.
      optimised, optimised_standard_error: the mean change and its paired standard error; None for a single prompt.
      general, general_standard_error: the same of the general reward.
    """

    prompts: int
    optimised: float
    optimised_standard_error: float | None
    general: float
    general_standard_error: float | None

    @property
    def over_optimised(self) -> bool:
        """Whether the optimised reward rose and the general one fell, both by more than chance."""
        rose = _rose(self.optimised, self.optimised_standard_error)
        return rose and _rose(-self.general, self.general_standard_error)

    def __str__(self) -> str:
        optimised, general = (
            f"{change:+.3g}" + ("" if error is None else f" (standard error {error:.2g})")
            for change, error in (
                (self.optimised, self.optimised_standard_error),
                (self.general, self.general_standard_error),
            )
        )
        return f"optimised reward {optimised}, general reward {general}, over {self.prompts} prompts"


def reward_changes(before: Rewards, after: Rewards) -> RewardChanges | None:
    """Returns how both rewards changed; None without a general reward, or without prompts.

    Args:
      before, after: of two policies' answers to the same prompts, in the same order.

    Raises:
      ValueError: if the two do not have the same number of prompts.
    """
    if not before.general or not after.general:
        return None
    return RewardChanges(
        len(before.optimised),
        *paired_difference(after.optimised, before.optimised),
        *paired_difference(after.general, before.general),
    )


def _rose(change: float, standard_error: float | None) -> bool:
    return standard_error is not None and change > STANDARD_ERRORS * standard_error
