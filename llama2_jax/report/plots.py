"""The report's charts: Matplotlib figures as SVG that lies inside the page and takes its colours from the page's style.

Matplotlib is told colours that are names in disguise; in the SVG they become CSS variables, so that one picture serves
light and dark. The same data give the same text: fixed ids, no dates.
"""

import dataclasses
import io
import re
from collections.abc import Callable, Mapping, Sequence
from xml.etree import ElementTree

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"

# Colours that do not occur otherwise -> the page's CSS variables.
INK, MUTED, GRID, PAPER = "#010001", "#010002", "#010003", "#010004"
HELPFULNESS, SAFETY, VIOLATION, REFUSAL, POLICY = "#010005", "#010006", "#010007", "#010008", "#010009"
VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", HELPFULNESS: "helpfulness", SAFETY: "safety",
    VIOLATION: "violation", REFUSAL: "refusal", POLICY: "policy",
}  # fmt: skip

STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "ytick.major.size": 0,
    "lines.linewidth": 1.9,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a chart; None in `y` is a gap, `error` is half of an interval's length."""

    label: str
    color: str
    x: Sequence[float]
    y: Sequence[float | None]
    error: Sequence[float | None] | None = None
    dashed: bool = False
    marker: str | None = "o"

    @property
    def known(self) -> bool:
        """Whether there is anything to draw."""
        return any(value is not None for value in self.y)


def shade(index: int, count: int) -> str:
    """The colour of the index-th of `count` things that have an order, from pale to strong."""
    return f"#0200{round(100 * (index / (count - 1) if count > 1 else 1)):02x}"


def line_chart(
    name: str,
    series: Sequence[Series],
    *,
    ticks: Sequence[str] | None = None,
    x_label: str = "",
    y_label: str = "",
    percent: bool = False,
    bottom: float | None = None,
    top: float | None = None,
    reference: tuple[float, str] | None = None,
    whole_steps: bool = False,
    small: bool = False,
) -> str | None:
    """Lines with markers and intervals; None where no series has a value.

    Args:
      name: makes the ids inside the SVG the picture's own.
      series: what to draw.
      ticks: names for x = 0, 1, ...; numbers by default.
      percent: y is a share, shown in percent.
      bottom, top: how far the y axis reaches at least.
      reference: a height to mark with a dashed line, and its name.
      whole_steps: the x axis has ticks at integers only.
      small: for one of several charts beside each other.
    """
    drawn = [line for line in series if line.known]
    if not drawn:
        return None

    def draw(axes: Axes) -> None:
        for line in drawn:
            _draw_line(axes, line)
        if reference:
            axes.axhline(reference[0], color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
            axes.annotate(reference[1], (1, reference[0]), xycoords=("axes fraction", "data"), xytext=(0, 2),
                          textcoords="offset points", ha="right", va="bottom", fontsize=7.5, color=MUTED)  # fmt: skip
        _set_range(axes, bottom, top, percent)
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _set_ticks(axes, ticks, whole_steps)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(drawn) > 1:
            _legend(axes, [line.label for line in drawn])

    return _as_svg(name, draw, (3.5, 2.5) if small else (4.7, 3.0))


def map_of_versions(
    name: str, labels: Sequence[str], x: Sequence[float | None], y: Sequence[float | None], x_label: str, y_label: str
) -> str | None:
    """The versions as a path through a plane of two win rates (figure 11); a version without both is left out."""
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

    return _as_svg(name, draw)


def stacked_shares(
    name: str, bars: Sequence[str], parts: Mapping[str, Sequence[float | None]], x_label: str = ""
) -> str | None:
    """One bar of height 100% for each of `bars`, made of the parts' shares (figure 25)."""
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
        _set_ticks(axes, bars, False)
        axes.set_xlabel(x_label)
        _legend(axes, list(parts))

    return _as_svg(name, draw)


def _draw_line(axes: Axes, line: Series) -> None:
    nan = float("nan")
    heights = [nan if value is None else value for value in line.y]
    style = {"color": line.color, "label": line.label, "marker": line.marker, "linestyle": "--" if line.dashed else "-"}
    if line.error is None or not any(line.error):
        axes.plot(line.x, heights, **style)
        return
    errors = [nan if value is None else value for value in line.error]
    axes.errorbar(line.x, heights, yerr=errors, capsize=2.5, elinewidth=1.1, capthick=1.1, **style)


def _set_range(axes: Axes, bottom: float | None, top: float | None, percent: bool) -> None:
    low, high = axes.get_ylim()
    low, high = low if bottom is None else min(low, bottom), high if top is None else max(high, top)
    if percent:  # shares end at 0 and 1, whatever an interval says; a little more, so that markers there are whole
        low, high = max(low, -0.015 * high), min(high, 1.015)
    axes.set_ylim(low, high)


def _reach(values: Sequence[float]) -> tuple[float, float]:
    """A range around values with room for labels."""
    low, high = min(values), max(values)
    room = max(0.18 * (high - low), 0.03)
    return low - room, high + room


def _set_ticks(axes: Axes, ticks: Sequence[str] | None, whole_steps: bool) -> None:
    if ticks is not None:
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_xlim(-0.5, len(ticks) - 0.5)
    elif whole_steps:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _legend(axes: Axes, labels: Sequence[str]) -> None:
    shown = [label for label in labels if not label.startswith("_")]  # Matplotlib leaves out the others
    columns = max(1, 60 // (max(map(len, shown)) + 5))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=min(len(shown), columns), borderaxespad=0.2,
                columnspacing=1.2, handlelength=1.4, handletextpad=0.5)  # fmt: skip


def _as_svg(name: str, draw: Callable[[Axes], None], size: tuple[float, float] = (4.7, 3.0)) -> str:
    with matplotlib.style.context(["default", STYLE, {"svg.hashsalt": name}]):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_the_page(target.getvalue())


def _for_the_page(text: str) -> str:
    """Matplotlib's file as an element of a page: no size of its own, no ids but those it refers to, CSS colours."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
        if parent.tag == f"{{{SVG}}}g":
            parent.attrib.pop("id", None)
        if f"{{{XLINK}}}href" in parent.attrib:
            parent.set("href", parent.attrib.pop(f"{{{XLINK}}}href"))
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("class", "plot")
    root.set("aria-hidden", "true")  # the caption and the table say the same in words
    svg = ElementTree.tostring(root, encoding="unicode")
    svg = re.sub("#01000[1-9]", lambda match: f"var(--{VARIABLES[match[0]]})", svg)
    return re.sub(
        "#0200([0-9a-f]{2})",
        lambda match: f"color-mix(in oklab, var(--strong) {int(match[1], 16)}%, var(--pale))",
        svg,
    )
