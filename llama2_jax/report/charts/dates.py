"""Charts of how often an event is said not to have happened yet, over the years between question and event."""

from collections.abc import Mapping, Sequence

from llama2_jax.report.plots import Series, XAxis, YAxis, line_chart
from llama2_jax.report.svg import shade


def date_charts(rows: Sequence[Mapping]) -> dict[str, str | None]:
    """Returns a chart for each set of dated questions, one line per version.

    Args:
      rows: dates in report.json.
    """
    by_gap = [row for row in rows if row["gap"] is not None]
    versions = list(dict.fromkeys(row["version"] for row in by_gap))
    charts = {}
    for name in dict.fromkeys(row["set"] for row in by_gap):
        series = [
            _line([row for row in by_gap if (row["set"], row["version"]) == (name, version)], shade(i, len(versions)))
            for i, version in enumerate(versions)
        ]
        charts[f"dates_{name}"] = line_chart(
            f"dates_{name}", series, XAxis("years from the event to the question", integers=True),
            YAxis('answered "not yet"', share=True, bottom=0.0, top=1.0),
        )  # fmt: skip
    return charts


def _line(rows: Sequence[Mapping], color: str) -> Series:
    """One version's line with 95 % intervals."""
    return Series(
        rows[0]["version"].replace("_", " "),
        color,
        [row["gap"] for row in rows],
        [row["not_yet"]["share"] for row in rows],
        [(row["not_yet"]["interval"][1] - row["not_yet"]["interval"][0]) / 2 for row in rows],
    )
