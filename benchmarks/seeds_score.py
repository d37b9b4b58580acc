"""One number for runs of the recipe in miniature with several seeds, for those who change one thing in it."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from scipy import stats

# The head of the table of docs/results.md to which `Score.row` adds.
LEADERBOARD = ("| change | score | +- (95 %) | minutes | seeds |", "|---" * 5 + "|")


@dataclasses.dataclass(frozen=True)
class Score:
    """What the last version reaches.

    Attributes:
      mean: over the seeds, in points of 100.
      half_width: of the 95 % interval of the mean (Student's t over the seeds); None for a single seed.
      minutes: the median of what all stages of a run took together.
      seeds: how many runs.
    """

    mean: float
    half_width: float | None
    minutes: float
    seeds: int

    def row(self, change: str) -> str:
        """Returns the leaderboard's row for a change, as Markdown."""
        interval = "-" if self.half_width is None else f"{self.half_width:.1f}"
        return f"| {change} | {self.mean:.1f} | {interval} | {self.minutes:.1f} | {self.seeds} |"


def points(version: Mapping) -> float:
    """Returns a version's points, of 100: the mean over unseen prompts of what win rates compare.

    That is the true helpfulness of an answer to a harmless prompt, and the true safety of one to an unsafe prompt.
    """
    weights = [version["judged"][name] for name in ("helpfulness", "safety")]
    values = [version[name] for name in ("helpfulness", "safety")]
    return 100 * sum(map(math.prod, zip(weights, values, strict=True))) / sum(weights)


def score(reports: Sequence[Mapping]) -> Score:
    """Returns the score of runs that differ by their seed alone, from their reports (report.json)."""
    reached = [points(report["versions"][-1]) for report in reports]
    minutes = statistics.median(sum(report["seconds"].values()) / 60 for report in reports)
    return Score(statistics.mean(reached), half_width(reached), minutes, len(reached))


def half_width(values: Sequence[float]) -> float | None:
    """Returns the half-width of the 95 % interval of the values' mean (Student's t); None for one value."""
    if len(values) < 2:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1)) * error
