"""Charts of what a round of RLHF collects: comparisons by annotators, and the samples of rejection sampling."""

from collections.abc import Mapping, Sequence

from llama2_jax.data.records import RATINGS, SAFETY_LABELS
from llama2_jax.report.formatting import half_interval
from llama2_jax.report.plots import Series, XAxis, YAxis, line_chart, stacked_shares
from llama2_jax.report.svg import shade

STRONG, PALE = shade(1, 2), shade(0, 2)


def annotation_charts(rows: Sequence[Mapping]) -> dict[str, str | None]:
    """Returns the charts of ratings and safety labels by round.

    Args:
      rows: the annotations of report.json.
    """
    bars = [f"round {row['round']}" for row in rows]

    def shares(field: str, names: Sequence[str]) -> str | None:
        return stacked_shares(field, bars, {n.replace("_", " "): [row[field].get(n) for row in rows] for n in names})

    return {
        "ratings": shares("ratings", RATINGS),
        "safety_labels": shares("safety_labels", tuple(SAFETY_LABELS.values())),
    }


def rejection_sampling_charts(rows: Sequence[Mapping]) -> dict[str, str | None]:
    """Returns the newest round's reward by number of samples and by temperature, and the origin of all rounds' data.

    Args:
      rows: rejection sampling in report.json.
    """
    newest = rows[-1] if rows else None
    return {
        "best_of": newest and _best_of(newest),
        "temperature": newest and _temperatures(newest),
        "bags": _bags(rows),
    }


def longest_curve(row: Mapping) -> tuple[Mapping, int | None]:
    """Returns a round's curves over the most answers (figure 7), and over how many prompts they are.

    Those of all its prompts, or, where the sweep sampled more answers to each, of the sweep at the round's temperature.
    """
    swept = row["sweep"].get(str(row["temperature"])) or {}
    if len(swept.get("max") or ()) > len(row["best_of"].get("max") or ()):
        return swept, row["sweep_prompts"]
    return row["best_of"], row["prompts"]


def _best_of(row: Mapping) -> str | None:
    """The best and the median reward among N answers, with 95% intervals (figure 7)."""
    curves, prompts = longest_curve(row)
    series = []
    for name, label, color in (("max", "best", STRONG), ("median", "median", PALE)):
        heights = curves.get(name) or []
        errors = [half_interval(one) for one in curves.get(f"{name}_standard_error") or []]
        many = len(heights) > 10  # intervals at every point would hide the line
        if many:
            errors = [one if n in (1, len(heights)) or n % 8 == 0 else None for n, one in enumerate(errors, 1)]
        series.append(
            Series(label, color, range(1, len(heights) + 1), heights, errors or None, marker=None if many else "o")
        )
    x = XAxis(f"answers sampled, N ({prompts} prompts, round {row['round']})", integers=True)
    return line_chart("best_of", series, x, YAxis("reward"))


def _temperatures(row: Mapping) -> str | None:
    """The best reward among N answers at each temperature of the sweep (figure 8)."""
    temperatures = sorted(row["sweep"], key=float)
    series = []
    for index, temperature in enumerate(temperatures):
        curve = row["sweep"][temperature].get("max") or []
        label = f"T = {temperature}" + (" (chosen)" if row["temperature"] == float(temperature) else "")
        series.append(Series(label, shade(index, len(temperatures)), range(1, len(curve) + 1), curve, marker=None))
    x = XAxis(f"answers sampled, N ({row['sweep_prompts']} prompts, round {row['round']})", integers=True)
    return line_chart("temperature", series, x, YAxis("best reward"))


def _bags(rows: Sequence[Mapping]) -> str | None:
    rounds = sorted({number for row in rows for number in row["bag_by_round"]}, key=int)
    if len(rounds) < 2:
        return None
    shares = {
        f"from round {number}": [row["bag_by_round"].get(number, 0) / max(row["bag"] or 0, 1) for row in rows]
        for number in rounds
    }
    return stacked_shares("bags", [f"round {row['round']}" for row in rows], shares)
