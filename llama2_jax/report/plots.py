"""The kinds of plot in the report: lines, the versions in a plane of two win rates, and stacked shares."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from llama2_jax.evaluation.measures import Chart
from llama2_jax.report.svg import GRID, INK, MUTED, PAPER, as_svg, shade


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
      label: its name in the legend; one that begins with "_" is left out there.
      color: a placeholder colour (svg.COLORS, svg.shade).
      x, y: the points; None in `y` is a gap.
      error: half the length of each point's interval.
      dashed: whether the line is dashed.
      marker: Matplotlib's marker; None for a line alone.
    """

    label: str
    color: str
    x: Sequence[float]
    y: Sequence[float | None]
    error: Sequence[float | None] | None = None
    dashed: bool = False
    marker: str | None = "o"

    @property
    def known(self) -> bool:
        """Whether there is a point to draw."""
        return any(value is not None for value in self.y)


@dataclasses.dataclass(frozen=True)
class XAxis:
    """The x axis: its label, names for x = 0, 1, ... instead of numbers, whether only integers have ticks, and marks.

    A mark is a value with a vertical line, and its label.
    """

    label: str = ""
    names: Sequence[str] | None = None
    integers: bool = False
    marks: Sequence[tuple[float, str]] = ()


@dataclasses.dataclass(frozen=True)
class YAxis:
    """The y axis: its label, whether it shows percent, the values it reaches at least, and a marked value's label."""

    label: str = ""
    share: bool = False
    bottom: float | None = None
    top: float | None = None
    reference: tuple[float, str] | None = None


def line_chart(name: str, series: Sequence[Series], x: XAxis, y: YAxis) -> str | None:
    """Returns lines with markers and intervals as SVG; None where no series has a value.

    Args:
      name: makes the ids inside the SVG unique on the page.
      series: the lines.
      x, y: the axes.
    """
    drawn = [line for line in series if line.known]
    if not drawn:
        return None

    def draw(axes: Axes) -> None:
        for line in drawn:
            _draw_line(axes, line)
        if y.reference:
            _draw_reference(axes, *y.reference)
        for index, (place, label) in enumerate(x.marks):
            _draw_mark(axes, place, label, index)
        _set_range(axes, y)
        if y.share:
            _show_percent(axes)
        if x.names is not None:
            _name_ticks(axes, x.names)
        elif x.integers:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel(x.label)
        axes.set_ylabel(y.label)
        if len(drawn) > 1:
            _legend(axes, [line.label for line in drawn])

    return as_svg(name, draw)


def declared_chart(chart: Chart, series: Sequence[Series], x: XAxis) -> str | None:
    """Returns the line chart of a declaration; None where no series has a value."""
    reference = None if chart.reference is None else (chart.reference, chart.reference_label)
    return line_chart(chart.name, series, x, YAxis(chart.y_label, chart.share, chart.bottom, chart.top, reference))


def map_of_versions(
    name: str, labels: Sequence[str], x: Sequence[float | None], y: Sequence[float | None], x_label: str, y_label: str
) -> str | None:
    """Returns the versions as a path in the plane of two win rates (figure 11); one without both rates is left out."""
    points = [(a, b, label) for a, b, label in zip(x, y, labels, strict=True) if a is not None and b is not None]
    if not points:
        return None

    def draw(axes: Axes) -> None:
        axes.grid(True, axis="both")
        for setter in (axes.axvline, axes.axhline):
            setter(0.5, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
        axes.annotate("SFT", (0.5, 0.5), xytext=(3, 3), textcoords="offset points", fontsize=8, color=MUTED)
        axes.plot([a for a, _, _ in points], [b for _, b, _ in points], color=GRID, linewidth=1.6, zorder=2)
        for index, (a, b, label) in enumerate(points):
            axes.plot([a], [b], "o", color=shade(index, len(points)), markersize=8, zorder=3)
            axes.annotate(label.replace("\n", " "), (a, b), xytext=(0, 7), textcoords="offset points", ha="center",
                          va="bottom", fontsize=8, zorder=4)  # fmt: skip
        for axis, low, high, setter in (
            (axes.xaxis, *_reach([a for a, _, _ in points] + [0.5]), axes.set_xlim),
            (axes.yaxis, *_reach([b for _, b, _ in points] + [0.5]), axes.set_ylim),
        ):
            setter(low, high)
            axis.set_major_locator(MaxNLocator(6))
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)

    return as_svg(name, draw)


def stacked_shares(name: str, bars: Sequence[str], parts: Mapping[str, Sequence[float | None]]) -> str | None:
    """Returns a bar of height 100% for each of `bars`, stacked from the parts' shares (figure 25)."""
    parts = {label: [value or 0.0 for value in values] for label, values in parts.items()}
    if not any(value for values in parts.values() for value in values):
        return None

    def draw(axes: Axes) -> None:
        bottom = [0.0] * len(bars)
        for index, (label, values) in enumerate(parts.items()):
            color = shade(len(parts) - 1 - index, len(parts))
            axes.bar(range(len(bars)), values, bottom=bottom, color=color, edgecolor=PAPER, linewidth=1, width=0.72,
                     label=label)  # fmt: skip
            for bar, value in enumerate(values):
                if value >= 0.06:
                    axes.text(bar, bottom[bar] + value / 2, f"{value:.0%}", ha="center", va="center", fontsize=8,
                              color=PAPER if index < len(parts) / 2 else INK)  # fmt: skip
            bottom = [low + value for low, value in zip(bottom, values, strict=True)]
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _name_ticks(axes, bars)
        _legend(axes, list(parts))

    return as_svg(name, draw)


def _draw_line(axes: Axes, line: Series) -> None:
    nan = float("nan")
    heights = [nan if value is None else value for value in line.y]
    style = {"color": line.color, "label": line.label, "marker": line.marker, "linestyle": "--" if line.dashed else "-"}
    if line.error is None or not any(line.error):
        axes.plot(line.x, heights, **style)
        return
    errors = [nan if value is None else value for value in line.error]
    axes.errorbar(line.x, heights, yerr=errors, capsize=2.5, elinewidth=1.1, capthick=1.1, **style)


def _draw_reference(axes: Axes, height: float, label: str) -> None:
    axes.axhline(height, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
    axes.annotate(label, (1, height), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points",
                  ha="right", va="bottom", fontsize=7.5, color=MUTED)  # fmt: skip


def _draw_mark(axes: Axes, place: float, label: str, index: int) -> None:
    axes.axvline(place, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
    # One below the other: marks may be close to each other.
    axes.annotate(label, (place, 0), xycoords=("data", "axes fraction"), xytext=(3, 4 + 11 * index),
                  textcoords="offset points", ha="left", va="bottom", fontsize=7.5, color=MUTED)  # fmt: skip


def _set_range(axes: Axes, y: YAxis) -> None:
    low, high = axes.get_ylim()
    low, high = low if y.bottom is None else min(low, y.bottom), high if y.top is None else max(high, y.top)
    if y.share:  # an interval may leave [0, 1], the axis does not, except to show markers at its ends in full
        low, high = max(low, -0.015 * high), min(high, 1 + 0.015 * (1 - low))
    axes.set_ylim(low, high)


def _show_percent(axes: Axes) -> None:
    """Labels the y axis in percent, with the decimals at which neighbouring ticks differ."""
    locator = MaxNLocator(7, steps=[1, 2, 5, 10])
    first, second, *_ = locator.tick_values(*axes.get_ylim())
    axes.yaxis.set_major_locator(locator)
    axes.yaxis.set_major_formatter(
        PercentFormatter(1.0, max(0, -math.floor(math.log10(100 * (second - first)) + 1e-6)))
    )


def _reach(values: Sequence[float]) -> tuple[float, float]:
    """Returns a range around the values with room for labels."""
    low, high = min(values), max(values)
    room = max(0.18 * (high - low), 0.03)
    return low - room, high + room


def _name_ticks(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)


def _legend(axes: Axes, labels: Sequence[str]) -> None:
    shown = [label for label in labels if not label.startswith("_")]  # as in Matplotlib
    widths = [len(label) + 5 for label in shown]  # in characters, the line's sample included; about 62 fit in a row
    columns = len(shown) if sum(widths) <= 62 else max(1, 62 // max(widths))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, borderaxespad=0.2,
                columnspacing=1.2, handlelength=1.4, handletextpad=0.5)  # fmt: skip
