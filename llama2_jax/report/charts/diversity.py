"""Charts of how alike many answers to one prompt are, over the temperature."""

from collections.abc import Mapping, Sequence

from llama2_jax.report.plots import Series, XAxis, YAxis, line_chart
from llama2_jax.report.svg import shade


def diversity_charts(rows: Sequence[Mapping]) -> dict[str, str | None]:
    """Returns a chart for each kind of prompts, one line per version.

    Args:
      rows: diversity in report.json.
    """
    versions = list(dict.fromkeys(row["version"] for row in rows))
    charts = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        series = [
            _line(
                [row for row in rows if (row["kind"], row["version"]) == (kind, version)], shade(index, len(versions))
            )
            for index, version in enumerate(versions)
        ]
        charts[f"self_bleu_{kind}"] = line_chart(
            f"self_bleu_{kind}", series, XAxis("temperature"), YAxis("Self-BLEU", bottom=0.0, top=100.0)
        )
    return charts


def _line(rows: Sequence[Mapping], color: str) -> Series:
    """One version's line: the mean over prompts with their standard deviation."""
    return Series(
        rows[0]["version"].replace("_", " "),
        color,
        [row["temperature"] for row in rows],
        [row["self_bleu"] for row in rows],
        [row["standard_deviation"] for row in rows],
    )
