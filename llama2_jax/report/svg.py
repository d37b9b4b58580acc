"""Matplotlib figures as SVG elements that take their colours from the page's style sheet.

Matplotlib draws with placeholder colours, which become CSS variables in the SVG: one chart serves light and dark mode.
The same data give the same text: fixed ids, no dates.
"""

import importlib.resources
import io
import re
from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from llama2_jax.evaluation import measures

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"

# The page's CSS variables -> placeholder colours that occur nowhere else.
COLORS = {name: f"#0100{index:02x}" for index, name in enumerate(("ink", "grid", "paper", *measures.COLORS), 1)}
INK, GRID, PAPER, MUTED = (COLORS[name] for name in ("ink", "grid", "paper", "muted"))

SIZE = (4.7, 3.0)  # width and height in inches

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


def shade(index: int, count: int) -> str:
    """Returns the placeholder colour of the index-th of `count` ordered things, from pale to strong."""
    return f"#0200{round(100 * (index / (count - 1) if count > 1 else 1)):02x}"


def as_svg(name: str, draw: Callable[[Axes], None]) -> str:
    """Returns what `draw` draws as an SVG element whose ids are derived from `name`, and so unique on the page."""
    with matplotlib.style.context(["default", STYLE, {"svg.hashsalt": name}]):
        figure = Figure(figsize=SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_the_page(target.getvalue())


def as_file(svg: str) -> str:
    """Returns such an SVG element as a file of its own: with the page's colours, light or dark as the viewer's."""
    colors = importlib.resources.files("llama2_jax.report").joinpath("colors.css").read_text()
    text = "text { font-family: system-ui, sans-serif !important; }"
    start, rest = svg.split(">", 1)
    return f"{start}><style>{colors}{text}</style>{rest}\n"


def _for_the_page(text: str) -> str:
    """Returns Matplotlib's file as an element of a page: without a fixed size or unused ids, and with CSS colours."""
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
    root.set("aria-hidden", "true")  # the caption and the table give the same in text
    svg = ElementTree.tostring(root, encoding="unicode")
    for name, placeholder in COLORS.items():
        svg = svg.replace(placeholder, f"var(--{name})")
    return re.sub(
        "#0200([0-9a-f]{2})",
        lambda match: f"color-mix(in oklab, var(--strong) {int(match[1], 16)}%, var(--pale))",
        svg,
    )
