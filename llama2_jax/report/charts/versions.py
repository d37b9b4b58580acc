"""Charts of the versions of the chat model: the declared measures, and both win rates at once."""

import re
from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.measures import Measure, charts_of
from llama2_jax.report.formatting import half_interval
from llama2_jax.report.plots import Series, XAxis, declared_chart, map_of_versions
from llama2_jax.report.svg import COLORS


def version_labels(names: Sequence[str]) -> list[str]:
    """Returns the versions' names as in the paper's figure 11; a name that is not the recipe's is left as it is."""
    return [_version_label(name, names) for name in names]


def _version_label(name: str, names: Sequence[str]) -> str:
    if name == "sft":
        return "SFT"
    if part := re.fullmatch(r"safety_(\d+)", name):
        return f"{part[1]}%"
    found = re.fullmatch(r"rlhf_v(\d+)(_rejection_sampling)?", name)
    if not found:
        return name
    if found[2]:
        return f"V{found[1]}\nno PPO"
    return f"V{found[1]}\n+ PPO" if f"{name}_rejection_sampling" in names else f"V{found[1]}"


def measure_charts(
    versions: Sequence[Mapping], measures: Sequence[Measure], labels: Sequence[str]
) -> dict[str, str | None]:
    """Returns the charts of the declared measures over the versions, by name.

    Args:
      versions: rows of report.json.
      measures: the declarations.
      labels: one per version.
    """
    return {
        chart.name: declared_chart(
            chart, [_line(measure, versions) for measure in measures if measure.chart == chart], XAxis(names=labels)
        )
        for chart in charts_of(measures)
    }


def _line(measure: Measure, versions: Sequence[Mapping]) -> Series:
    values = [version[measure.name] for version in versions]
    error = None
    if measure.standard_error:
        error = [half_interval(version[measure.standard_error]) for version in versions]
    marker = "." if measure.dashed else "o"
    return Series(measure.label, COLORS[measure.color], range(len(values)), values, error, measure.dashed, marker)


def win_rate_map(versions: Sequence[Mapping], labels: Sequence[str]) -> str | None:
    """Returns the versions in the plane of their win rates on helpfulness and safety prompts (figure 11)."""
    names = ("helpfulness_win_rate_vs_sft", "safety_win_rate_vs_sft")
    x, y = ([version.get(name) for version in versions] for name in names)
    return map_of_versions(
        "map", labels, x, y, "wins over SFT, helpfulness prompts", "wins over SFT, safety prompts"
    )  # fmt: skip
