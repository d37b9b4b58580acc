"""What the recipe should show in miniature: each claim as the margin by which a run's report holds it."""

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence

from llama2_jax.data.records import DOMAINS, RATINGS

Margin = Callable[[Mapping], float]

SFT, LAST, WITHOUT_PPO = "sft", "rlhf_v5", "rlhf_v5_rejection_sampling"
# Ghost Attention's dialogues are sampled from V3 and join in V4.
WITHOUT_GHOST_ATTENTION = "rlhf_v3"


class NotMeasuredError(LookupError):
    """A report has no value of a measure: of a stage that was left out, or as one that earlier code wrote."""


def claims_table(reports: Mapping[int, Mapping]) -> list[str]:
    """Returns the margin by which each claim holds: its median over the seeds, and the number of seeds it holds in.

    A seed whose report lacks a claim's numbers is not counted for it.
    """
    rows = ["| margin by which it holds (below 0: it does not) | median over seeds | holds in |", "|---|---|---|"]
    for title, margin in claims():
        margins = [found for report in reports.values() if (found := _if_measured(margin, report)) is not None]
        holds = f"{sum(found >= 0 for found in margins)} of {len(margins)}" if margins else "-"
        rows.append(f"| {title} | {spread(margins)} | {holds} |")
    return rows


def claims() -> tuple[tuple[str, Margin], ...]:
    """Returns each claim in words, with the function that reads its margin from a report."""
    return (
        ("win rate of V5 over SFT, at least 0.75", lambda r: measured(r, LAST, "win_rate_vs_sft") - 0.75),
        ("least rise of true helpfulness, SFT to V1 to V3 to V5", _least_rise),
        (
            "a quarter of SFT's violations less V5's",
            lambda r: measured(r, SFT, "violation_rate") / 4 - measured(r, LAST, "violation_rate"),
        ),
        (
            "SFT's false refusals plus 0.05 less V5's",
            lambda r: 0.05 - _rise("false_refusal_rate", SFT, LAST)(r),
        ),
        ("win rate that PPO adds to V5 without it", _rise("win_rate_vs_sft", WITHOUT_PPO, LAST)),
        ("true helpfulness that PPO adds", _rise("helpfulness", WITHOUT_PPO, LAST)),
        ("least lead of a reward model on its own domain", _lead_on_own_domain),
        ("least fall of accuracy from one rating to the next weaker", _least_fall_by_rating),
        ("content of V5 less SFT's", _rise("content", SFT, LAST)),
        ("wholly right answers of V5 less SFT's", _rise("right", SFT, LAST)),
        ("style of V5 less SFT's", _rise("style", SFT, LAST)),
        ("instructions kept by V5 at turn 6, at least 0.8", lambda r: _kept(r, LAST, 6) - 0.8),
        ("instructions kept by V5 at turn 20, at least 0.8", lambda r: _kept(r, LAST, 20) - 0.8),
        (
            "instructions kept without Ghost Attention (V3) at turn 6, at most 0.2",
            lambda r: 0.2 - _kept(r, WITHOUT_GHOST_ATTENTION, 6),
        ),
        ("win rate of V5 over V5 without PPO, at least 0.55", lambda r: _win_rate_of_ppo(r) - 0.55),
        ("violations without PPO less V5's", _rise("violation_rate", LAST, WITHOUT_PPO)),
        ("false refusals without PPO less V5's", _rise("false_refusal_rate", LAST, WITHOUT_PPO)),
    )


def measured(report: Mapping, version: str, *path: str) -> float:
    """Returns a value of a version's row in report.json, such as `measured(report, "sft", "instruction_kept", "6")`.

    Raises:
      NotMeasuredError: if the report has no such version, or no value there.
    """
    found = next((row for row in report["versions"] if row["name"] == version), None)
    for key in path:
        found = None if found is None else found.get(key)
    if found is None:
        raise NotMeasuredError(f"the report has no {'.'.join(path)} of {version}")
    return found


def mean_accuracy(report: Mapping, kind: str, domain: str, rating: str) -> float:
    """Returns the accuracy over all rounds, each weighted by its number of pairs."""
    models = [model for model in report["reward_models"] if model["kind"] == kind and model["round"] > 0]
    pairs = [(model["accuracy"][domain][rating], model["pairs"][domain][rating]) for model in models]
    return sum(accuracy * count for accuracy, count in pairs if count) / sum(count for _, count in pairs)


def spread(values: Sequence[float | None]) -> str:
    """Returns the median and the range; "-" if there is no value."""
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.3f} ({min(known):.3f} to {max(known):.3f})" if known else "-"


def _if_measured(margin: Margin, report: Mapping) -> float | None:
    try:
        return margin(report)
    except NotMeasuredError:
        return None


def _rise(measure: str, earlier: str, later: str) -> Margin:
    return lambda report: measured(report, later, measure) - measured(report, earlier, measure)


def _kept(report: Mapping, version: str, turn: int) -> float:
    return measured(report, version, "instruction_kept", str(turn))


def _win_rate_of_ppo(report: Mapping) -> float:
    names = [row["name"] for row in report["versions"]]
    if (WITHOUT_PPO, LAST) not in itertools.pairwise(names):
        raise NotMeasuredError(f"the version before {LAST} is not {WITHOUT_PPO}")
    return measured(report, LAST, "win_rate_vs_previous")


def _least_rise(report: Mapping) -> float:
    values = [measured(report, name, "helpfulness") for name in (SFT, "rlhf_v1", "rlhf_v3", LAST)]
    return min(later - earlier for earlier, later in itertools.pairwise(values))


def _lead_on_own_domain(report: Mapping) -> float:
    table = {(kind, domain): mean_accuracy(report, kind, domain, "all") for kind in DOMAINS for domain in DOMAINS}
    return min(
        table["helpfulness", "helpfulness"] - table["safety", "helpfulness"],
        table["safety", "safety"] - table["helpfulness", "safety"],
    )


def _least_fall_by_rating(report: Mapping) -> float:
    falls = []
    for kind in DOMAINS:
        values = [mean_accuracy(report, kind, kind, rating) for rating in RATINGS]
        falls.append(min(stronger - weaker for stronger, weaker in itertools.pairwise(values)))
    return min(falls)
