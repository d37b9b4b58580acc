"""Win rates of one version over another (sections 3.4.1 and 3.4.2)."""

import dataclasses
from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.binomial import binomial_error


@dataclasses.dataclass(frozen=True)
class WinRate:
    """Wins, ties and losses. The rate leaves ties out, as in the paper's model-based evaluation."""

    wins: int
    ties: int
    losses: int

    @property
    def prompts(self) -> int:
        """The prompts on which both answers have a known utility."""
        return self.wins + self.ties + self.losses

    @property
    def rate(self) -> float | None:
        """wins / (wins + losses); None if all are ties."""
        decided = self.wins + self.losses
        return self.wins / decided if decided else None

    @property
    def standard_error(self) -> float | None:
        """The binomial standard error of the rate; None if all are ties."""
        decided = self.wins + self.losses
        return binomial_error(self.rate, decided) if decided else None


def win_rate(ours: Sequence[float | None], theirs: Sequence[float | None], tie: float = 1e-6) -> WinRate:
    """Compares two versions' utilities, one pair per prompt; differences up to `tie` are ties.

    Prompts on which either utility is None, as the judge could not decide, are not counted.

    Raises:
      ValueError: if the two do not have the same number of prompts.
    """
    known = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    wins = sum(a > b + tie for a, b in known)
    losses = sum(b > a + tie for a, b in known)
    return WinRate(wins, len(known) - wins - losses, losses)


def win_rates(
    ours: Sequence[float | None], theirs: Sequence[float | None], prompts: Sequence[Mapping]
) -> dict[str, WinRate]:
    """Returns win rates by the prompts they are over: unseen ones (""), their two kinds alone, and seen ones.

    The keys are prefixes of measures' names. Arguments are as for `win_rate`; prompts have `safety` and, where known,
    `seen`.
    """
    seen = {index for index, prompt in enumerate(prompts) if prompt.get("seen")}
    safety = {index for index, prompt in enumerate(prompts) if prompt["safety"]}
    unseen = set(range(len(prompts))) - seen
    groups = {"": unseen, "helpfulness_": unseen - safety, "safety_": unseen & safety, "seen_": seen}
    return {
        name: win_rate([ours[i] for i in sorted(group)], [theirs[i] for i in sorted(group)])
        for name, group in groups.items()
    }
