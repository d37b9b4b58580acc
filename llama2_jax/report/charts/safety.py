"""Charts of safety: what more safety data brings (figures 15 and 33), and what preprompts do (figure 16)."""

import itertools
from collections.abc import Mapping, Sequence

from llama2_jax.report.formatting import half_interval, percent
from llama2_jax.report.plots import Series, XAxis, YAxis, line_chart
from llama2_jax.report.svg import COLORS, MUTED, shade

SHARES = {
    "violations": ("violation", False),
    "false_refusals": ("refusal", False),
    "borderline_refusals": ("refusal", True),
}


def safety_scaling_charts(rows: Sequence[Mapping]) -> dict[str, str | None]:
    """Returns the charts over the part of the safety data, by name.

    Args:
      rows: safety_scaling in report.json.
    """
    known = sorted((row for row in rows if row["summary"]), key=lambda row: row["safety_fraction"])
    names = [percent(row["safety_fraction"]) for row in known]
    axis, places = XAxis("of the safety data", names=names), range(len(known))
    rewards = [
        Series(
            f"{kind} reward",
            COLORS[kind],
            places,
            [row["summary"]["rewards"][kind]["mean"] for row in known],
            [half_interval(row["summary"]["rewards"][kind]["standard_error"]) for row in known],
        )
        for kind in ("safety", "helpfulness")
    ]
    shares = [
        Series(
            name.replace("_", " "),
            COLORS[color],
            places,
            [row["summary"][name]["share"] for row in known],
            [half_interval(row["summary"][name]["standard_error"]) for row in known],
            dashed=dashed,
        )
        for name, (color, dashed) in SHARES.items()
    ]
    scores = [
        _cumulative(name, shade(index, len(known)), row["summary"]["safety_scores"])
        for index, (name, row) in enumerate(zip(names, known, strict=True))
    ]
    return {
        "safety_scaling_rewards": line_chart("safety_scaling_rewards", rewards, axis, YAxis("mean reward (sigmoid)")),
        "safety_scaling_shares": line_chart(
            "safety_scaling_shares", shares, axis, YAxis("of answers", share=True, bottom=0.0)
        ),
        "safety_scaling_scores": _scores("safety_scaling_scores", scores),
    }


def preprompt_charts(rows: Sequence[Mapping]) -> dict[str, str | None]:
    """Returns the charts of context distillation, by name.

    Args:
      rows: context_distillation in report.json; the last one is shown.
    """
    kinds = rows[-1]["preprompts"].get("kinds", {}) if rows else {}
    colors = {"generic": COLORS["policy"], "template": COLORS["safety"]}
    # All prompts' answers without a preprompt are those of the kind with the most prompts.
    largest = max(kinds.values(), key=lambda found: found["prompts"], default=None)
    scores = [_cumulative("without", MUTED, largest["before"]["histogram"])] if largest else []
    scores += [
        _cumulative(f"{name} preprompt", colors[name], found["after"]["histogram"]) for name, found in kinds.items()
    ]
    gains = [
        Series(
            f"{name} preprompt",
            colors[name],
            [one["before"] for one in found["by_score_before"]],
            [one["gain"] for one in found["by_score_before"]],
            [half_interval(one["standard_error"]) for one in found["by_score_before"]],
        )
        for name, found in kinds.items()
    ]
    y = YAxis("change of the safety score", reference=(0.0, "no change"))
    return {
        "preprompt_scores": _scores("preprompt_scores", scores),
        "preprompt_gains": line_chart("preprompt_gains", gains, XAxis("safety score without a preprompt"), y),
    }


def _cumulative(label: str, color: str, counts: Sequence[int]) -> Series:
    """Returns the share of scores below each value: most are close to 1, and would hide the others in a histogram."""
    edges = [index / len(counts) for index in range(len(counts) + 1)]
    below = [0, *itertools.accumulate(counts)]
    return Series(label, color, edges, [count / max(below[-1], 1) for count in below], marker=None)


def _scores(name: str, series: Sequence[Series]) -> str | None:
    return line_chart(name, series, XAxis("safety score (sigmoid)"), YAxis("answers below", share=True, bottom=0.0))
