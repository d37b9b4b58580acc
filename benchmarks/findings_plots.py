"""Plots of the paper's figures as the miniature shows them, over seeds: means with their 95 % intervals, as SVG."""

import dataclasses
import functools
import pathlib
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.seeds_score import half_width
from llama2_jax.report.plots import Series, XAxis, YAxis, line_chart
from llama2_jax.report.svg import COLORS, as_file, shade

# By the name of an experiment, or "rlhf_v5", the reports of the seeds that have one.
Reports = Mapping[str, Sequence[Mapping]]
# A label and its numbers in one report.
Rows = Iterable[tuple[str, Sequence[float | None]]]

TURNS = ("1", "2", "4", "6", "10", "20")
TEMPERATURES = ("0.2", "0.4", "0.6", "0.8", "1.0", "1.2", "1.4")
KINDS = ("helpfulness", "safety")
# Lines of these names have the report's colours; others are shades in their order.
_COLORS = {
    "helpfulness": "helpfulness",
    "helpfulness reward": "helpfulness",
    "safety": "safety",
    "safety reward": "safety",
    "violations": "violation",
    "false refusals": "refusal",
    "wins over SFT": "policy",
}


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure: its file's name, the experiment whose reports have it, the lines of a report and the axes."""

    name: str
    experiment: str
    lines: Callable[[Mapping], Rows]
    x: XAxis
    y: YAxis


def write_plots(reports: Reports, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes <name>.svg of each figure of which the reports have something, and returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for plot in PLOTS:
        svg = draw(plot, reports[plot.experiment])
        if svg:
            written.append(folder / f"{plot.name}.svg")
            written[-1].write_text(as_file(svg))
    return written


def draw(plot: Plot, reports: Sequence[Mapping]) -> str | None:
    """Returns the figure as SVG; None where no report has a number."""
    found = over_seeds(reports, plot.lines)
    series = [
        Series(
            label,
            COLORS[_COLORS[label]] if label in _COLORS else shade(index, len(found)),
            range(len(points)),
            [statistics.mean(values) if values else None for values in points],
            [half_width(values) or 0.0 for values in points],
            dashed=label.startswith(("median", "new")),
        )
        for index, (label, points) in enumerate(found.items())
    ]
    names = plot.x.names or list(range(1, 1 + max((len(line.x) for line in series), default=0)))
    return line_chart(plot.name, series, dataclasses.replace(plot.x, names=names), plot.y)


def over_seeds(reports: Sequence[Mapping], rows: Callable[[Mapping], Rows]) -> dict[str, list[list[float]]]:
    """Returns by label, for each of its numbers, the values of the reports that have it."""
    cells: dict[str, list[list[float]]] = {}
    for report in reports:
        for label, values in rows(report):
            of_label = cells.setdefault(label, [[] for _ in values])
            for known, value in zip(of_label, values, strict=True):
                known += [] if value is None else [value]
    return cells


def accuracy_by_round(report: Mapping) -> Rows:
    """Each reward model on its own domain, all pairs."""
    for kind in KINDS:
        rows = [row for row in report["reward_models"] if row["kind"] == kind and row["round"] > 0]
        yield kind, [row["accuracy"][kind]["all"] for row in sorted(rows, key=lambda row: row["round"])]


def accuracy_by_part(report: Mapping) -> Rows:
    """Reward models on growing parts of the comparisons, each on its own domain."""
    for kind in KINDS:
        rows = [row for row in report["reward_scaling"] if row["kind"] == kind]
        yield kind, [row["accuracy"][kind]["all"] for row in sorted(rows, key=lambda row: row["prompt_fraction"])]


def reward_by_samples(report: Mapping) -> Rows:
    """The last round's sweep: what the best and the median of 1, 2, .. samples have more than one, by temperature."""
    for row in report["rejection_sampling"][-1:]:
        for name in ("max", "median"):
            for temperature, curves in row["sweep"].items():
                yield f"{name}, {temperature}", [reward - curves[name][0] for reward in curves[name]]


def attention_by_turn(report: Mapping) -> Rows:
    """The largest attention to the system message, before and with Ghost Attention."""
    for row in report["versions"]:
        if row["name"] in ("rlhf_v3", "rlhf_v4") and row.get("instruction_attention"):
            yield row["name"], [row["instruction_attention"].get(turn) for turn in TURNS]


def kept_by_turn(report: Mapping) -> Rows:
    """Instructions kept, before and with Ghost Attention."""
    for label, field in (("known", "instruction_kept"), ("new", "new_instruction_kept")):
        for row in report["versions"]:
            if row["name"] in ("rlhf_v3", "rlhf_v4", "rlhf_v5") and row.get(field):
                yield f"{label}, {row['name']}", [row[field].get(turn) for turn in TURNS]


def gain_by_preprompt(report: Mapping) -> Rows:
    """What each kind of safety preprompt changes in the safety score: of all answers, the least and the most safe."""
    for row in report["context_distillation"]:
        for kind, found in (row["preprompts"].get("kinds") or {}).items():
            parts = found["by_score_before"]
            yield kind, [found["gain"]["mean"], parts[0]["gain"], parts[-1]["gain"]]


def self_bleu(report: Mapping, kind: str) -> Rows:
    """How alike each version's answers to one kind of prompts are, over TEMPERATURES."""
    rows = [row for row in report["diversity"] if row["kind"] == kind]
    for version in dict.fromkeys(row["version"] for row in rows):
        found = {f"{row['temperature']:.1f}": row["self_bleu"] for row in rows if row["version"] == version}
        yield version, [found.get(temperature) for temperature in TEMPERATURES]


def _of_versions(measures: Mapping[str, str], start: str = "") -> Callable[[Mapping], Rows]:
    """Lines over the versions whose names start so: labels and the names of measures."""

    def lines(report: Mapping) -> Rows:
        versions = [row for row in report["versions"] if row["name"].startswith(start)]
        for label, name in measures.items():
            yield label, [row.get(name) for row in versions]

    return lines


VERSIONS = ("SFT", "V1", "V2", "V3", "V4", "V5\nno PPO", "V5")
SAFETY_PARTS = ("0", "1", "10", "25", "50", "100")
_TURN = XAxis("turn", names=TURNS)
PLOTS = (
    Plot("figure_6_rounds", "rlhf_v5", accuracy_by_round, XAxis("round"), YAxis("accuracy", share=True)),
    Plot(
        "figure_6_comparisons", "reward_scaling", accuracy_by_part,
        XAxis("part of the prompts", names=("1/8", "1/4", "1/2", "all")), YAxis("accuracy", share=True),
    ),
    Plot("figures_7_and_8", "rlhf_v5", reward_by_samples, XAxis("samples"), YAxis("reward less that of one sample")),
    Plot("figure_10", "rlhf_v5", attention_by_turn, _TURN, YAxis("attention to the system message", bottom=0.0)),
    Plot(
        "figure_11", "rlhf_v5",
        _of_versions({"wins over SFT": "win_rate_vs_sft", "helpfulness": "helpfulness", "safety": "safety"}),
        XAxis(names=VERSIONS), YAxis("share", share=True, reference=(0.5, "as SFT")),
    ),
    Plot(
        "figures_14_and_20", "rlhf_v5",
        _of_versions({"helpfulness reward": "reward_helpfulness", "safety reward": "reward_safety"}),
        XAxis(names=VERSIONS), YAxis("mean score"),
    ),
    Plot(
        "figure_15", "safety_scaling",
        _of_versions({"safety reward": "reward_safety", "helpfulness reward": "reward_helpfulness"}, start="safety_"),
        XAxis("% of the safety data", names=SAFETY_PARTS), YAxis("mean score"),
    ),
    Plot(
        "figure_33", "safety_scaling",
        _of_versions(
            {
                "violations": "violation_rate", "false refusals": "false_refusal_rate",
                "of borderline prompts": "borderline_refusal_rate",
            },
            start="safety_",
        ),
        XAxis("% of the safety data", names=SAFETY_PARTS), YAxis(share=True, bottom=0.0),
    ),
    Plot(
        "figure_16", "rlhf_v5", gain_by_preprompt,
        XAxis("answers without a preprompt", names=("all", "the least safe", "the safest")),
        YAxis("change of the safety score", reference=(0.0, "no change")),
    ),
    *(
        Plot(
            f"figure_21_{kind}", "diversity", functools.partial(self_bleu, kind=kind),
            XAxis("temperature", names=TEMPERATURES), YAxis(f"Self-BLEU, {kind} prompts"),
        )
        for kind in ("factual", "creative")
    ),
    Plot("table_30", "rlhf_v5", kept_by_turn, _TURN, YAxis("instructions kept", share=True, bottom=0.0, top=1.0)),
)  # fmt: skip
