"""Charts of what a round of RLHF collects: comparisons by annotators, and the samples of rejection sampling."""

from collections.abc import Mapping, Sequence

from llama2_jax.data.records import RATINGS, SAFETY_LABELS
from llama2_jax.report.plots import SMALL, Series, XAxis, YAxis, line_chart, stacked_shares
from llama2_jax.report.svg import shade


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
    """Returns the charts of the reward by number of samples and by temperature, and of the fine-tuning data's origin.

    Args:
      rows: rejection sampling in report.json.
    """
    best_of, by_temperature = [], []
    for index, row in enumerate(rows):
        color = shade(index, len(rows))
        for name, dashed in (("max", False), ("median", True)):
            curve = row["best_of"].get(name) or []
            label = f"_{name}" if dashed else f"round {row['round']}"
            best_of.append(Series(label, color, range(1, len(curve) + 1), curve, dashed=dashed, marker=None))
        reached = sorted((float(t), curve["max"][-1]) for t, curve in row["sweep"].items() if curve.get("max"))
        by_temperature.append(
            Series(f"round {row['round']}", color, [t for t, _ in reached], [reward for _, reward in reached])
        )
    samples = XAxis("answers sampled, N", integers=True)
    return {
        "best_of": line_chart("best_of", best_of, samples, YAxis("reward")),
        "temperature": line_chart(
            "temperature", by_temperature, XAxis("temperature"), YAxis("reward of the best answer")
        ),
        "bags": _bags(rows),
    }


def sweep_chart(row: Mapping) -> str | None:
    """Returns the best reward among N answers at each temperature of a round's sweep."""
    temperatures = sorted(row["sweep"], key=float)
    series = []
    for index, temperature in enumerate(temperatures):
        curve = row["sweep"][temperature].get("max") or []
        label = f"T = {temperature}" + (" (chosen)" if row["temperature"] == float(temperature) else "")
        series.append(Series(label, shade(index, len(temperatures)), range(1, len(curve) + 1), curve, marker=None))
    x = XAxis(f"round {row['round']}: answers sampled, N", integers=True)
    return line_chart(f"sweep_{row['stage']}", series, x, YAxis("best reward"), SMALL)


def _bags(rows: Sequence[Mapping]) -> str | None:
    rounds = sorted({number for row in rows for number in row["bag_by_round"]}, key=int)
    if len(rounds) < 2:
        return None
    shares = {
        f"from round {number}": [row["bag_by_round"].get(number, 0) / max(row["bag"] or 0, 1) for row in rows]
        for number in rounds
    }
    return stacked_shares("bags", [f"round {row['round']}" for row in rows], shares)
