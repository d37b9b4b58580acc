"""Charts of what rewards are worth: calibration, scores of unsafe answers and their threshold, rewards by quality."""

from collections.abc import Mapping, Sequence

from llama2_jax.data.records import DOMAINS
from llama2_jax.report.charts.reward_models import newest_round
from llama2_jax.report.formatting import half_interval, number
from llama2_jax.report.plots import Series, XAxis, YAxis, line_chart
from llama2_jax.report.svg import COLORS, MUTED


def own_test(row: Mapping) -> Mapping:
    """Returns a reward model's tests on its own domain: on the rounds' comparisons, else on people's from files."""
    return row["tests"].get(row["kind"]) or row["tests"].get(f"human_{row['kind']}") or {}


def reward_test_charts(rows: Sequence[Mapping], quality: Mapping[str, Mapping | None]) -> dict[str, str | None]:
    """Returns the charts of the newest round's reward models by name.

    Args:
      rows: the reward models of report.json, sorted by round.
      quality: the reward_quality of report.json.
    """
    newest = newest_round(rows)
    unsafe = next((found for row in newest if (found := own_test(row).get("unsafe"))), None)
    return {
        "calibration": _calibration(newest),
        "unsafe_scores": _unsafe_scores(unsafe) if unsafe else None,
        "unsafe_threshold": _unsafe_threshold(unsafe) if unsafe else None,
        "reward_quality": _quality(quality),
    }


def _calibration(rows: Sequence[Mapping]) -> str | None:
    series = []
    for row in rows:
        bins = own_test(row).get("calibration", {}).get("bins") or []
        series.append(
            Series(
                f"{row['kind']} model",
                COLORS.get(row["kind"], MUTED),
                [one["claimed"] for one in bins],
                [one["right"] for one in bins],
                [half_interval(one["standard_error"]) for one in bins],
            )
        )
    if not any(line.known for line in series):
        return None
    series.append(Series("as claimed", MUTED, [0.5, 1.0], [0.5, 1.0], dashed=True, marker=None))
    return line_chart("calibration", series, XAxis("probability claimed"), YAxis("ranked right", share=True, top=1.0))


def _unsafe_scores(unsafe: Mapping) -> str | None:
    series = []
    for label, color in (("safe", "safety"), ("unsafe", "violation")):
        counts = unsafe["histogram"][label]
        middles = [(index + 0.5) / len(counts) for index in range(len(counts))]
        shares = [count / max(sum(counts), 1) for count in counts]
        series.append(Series(f"labelled {label} ({sum(counts):,})", COLORS[color], middles, shares, marker=None))
    return line_chart("unsafe_scores", series, XAxis("safety score (sigmoid)"), YAxis("of such answers", share=True))


def _unsafe_threshold(unsafe: Mapping) -> str | None:
    thresholds = [one["threshold"] for one in unsafe["curve"]]
    series = [
        Series(
            name,
            COLORS[color],
            thresholds,
            [one[name] for one in unsafe["curve"]],
            [half_interval(one[f"{name}_standard_error"]) for one in unsafe["curve"]],
            marker=".",
        )
        for name, color in (("precision", "policy"), ("recall", "violation"))
    ]
    marks = [(unsafe["configured"]["threshold"], number(unsafe["configured"]["threshold"], 2))]
    if unsafe["recalibrated"]:
        found = unsafe["recalibrated"]["threshold"]
        marks.append((found, f"{number(found, 2)}, recalibrated"))
    y = YAxis(share=True, bottom=0.0, top=1.0)
    return line_chart("unsafe_threshold", series, XAxis("called unsafe below", marks=marks), y)


def _quality(quality: Mapping[str, Mapping | None]) -> str | None:
    series = [
        Series(
            f"{kind} model",
            COLORS[kind],
            [one["quality"] for one in quality[kind]["bins"]],
            [one["reward"] for one in quality[kind]["bins"]],
            [half_interval(one["standard_error"]) for one in quality[kind]["bins"]],
        )
        for kind in DOMAINS
        if quality.get(kind)
    ]
    return line_chart(
        "reward_quality", series, XAxis("quality, according to the judge"), YAxis("mean reward (sigmoid)")
    )
