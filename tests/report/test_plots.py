"""Charts as SVG: the same for the same data, coloured by the page, and with what was given drawn where it belongs."""

import re
from xml.etree import ElementTree

import matplotlib
import pytest

from llama2_jax.report.plots import Series, XAxis, YAxis, line_chart, map_of_versions, stacked_shares
from llama2_jax.report.svg import COLORS, SVG, shade

HELPFULNESS = COLORS["helpfulness"]
PLAIN = (XAxis(), YAxis())


def texts(svg):
    """The texts of a chart, in order."""
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{{{SVG}}}text")]


def a_chart(name="a"):
    line = Series("reward", HELPFULNESS, [1, 2, 3], [0.5, None, 0.7], error=[0.1, None, 0.1])
    return line_chart(name, [line], XAxis("iteration"), YAxis(share=True, reference=(0.5, "start")))


def test_same_data_same_text():
    assert a_chart() == a_chart()


def test_charts_of_one_page_do_not_share_ids():
    ids = [set(re.findall(r'\bid="([^"]+)"', a_chart(name))) for name in ("a", "b")]
    assert ids[0] and not ids[0] & ids[1]


def test_every_reference_has_its_definition():
    svg = a_chart()
    used = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
    assert used and used <= set(re.findall(r'\bid="([^"]+)"', svg))


def test_colors_come_from_the_page():
    svg = a_chart() + stacked_shares("s", ["x", "y"], {"a": [0.5, 0.2], "b": [0.5, 0.8]})
    assert not re.search("#0[12]00", svg), "a colour that stands for a variable was left in the picture"
    assert "var(--helpfulness)" in svg and "var(--grid)" in svg
    assert "color-mix(in oklab, var(--strong) 100%, var(--pale))" in svg


def test_shades_go_from_pale_to_strong():
    assert [shade(index, 3) for index in range(3)] == ["#020000", "#020032", "#020064"]
    assert shade(0, 1) == "#020064"
    assert not set(COLORS.values()) & {shade(index, 101) for index in range(101)}


def test_marks_are_lines_with_their_labels():
    line = Series("recall", HELPFULNESS, [0.0, 1.0], [0.0, 1.0])
    marked = line_chart("a", [line], XAxis(marks=[(0.15, "0.15"), (0.5, "half <")]), YAxis())
    assert {"0.15", "half <"} <= set(texts(marked))
    dashes = [svg.count("stroke-dasharray") for svg in (marked, line_chart("a", [line], XAxis(), YAxis()))]
    assert dashes[0] == dashes[1] + 2


def test_texts_stay_texts_and_are_escaped():
    line = Series("x", HELPFULNESS, [0, 1], [1.0, 2.0])
    svg = line_chart("a", [line], XAxis(names=["<b>", "$x_1$"]), YAxis("a & b"))
    assert "<b>" not in svg
    assert {"<b>", "$x_1$", "a & b"} <= set(texts(svg))


def test_legend_only_where_there_is_something_to_tell_apart():
    lines = [Series(name, HELPFULNESS, [0, 1], [1.0, 2.0]) for name in ("one", "two")]
    assert {"one", "two"} <= set(texts(line_chart("a", lines, *PLAIN)))
    assert "one" not in texts(line_chart("a", [lines[0], Series("two", HELPFULNESS, [0, 1], [None, None])], *PLAIN))


@pytest.mark.parametrize(
    "nothing",
    [
        line_chart("a", [], *PLAIN),
        line_chart("a", [Series("x", HELPFULNESS, [0], [None])], *PLAIN),
        stacked_shares("a", ["x"], {"a": [None]}),
        map_of_versions("a", ["sft"], [None], [0.5], "x", "y"),
    ],
)
def test_no_data_no_chart(nothing):
    assert nothing is None


def test_map_leaves_out_versions_without_both_rates():
    svg = map_of_versions("m", ["sft", "V1", "V5\n+ PPO"], [None, 0.6, 0.7], [0.5, 0.6, 0.8], "x", "y")
    assert "V1" in texts(svg) and "V5 + PPO" in texts(svg) and "sft" not in texts(svg)


def test_parts_are_labelled_with_their_shares_where_there_is_room():
    svg = stacked_shares("s", ["round 1"], {"a": [0.97], "b": [0.03]})
    assert "97%" in texts(svg) and "3%" not in texts(svg)


def test_settings_of_matplotlib_are_left_as_they_were():
    before = dict(matplotlib.rcParams)
    a_chart()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, ["0%", "20%", "40%", "60%", "80%", "100%"]),
        (0.0, 0.05, ["0%", "1%", "2%", "3%", "4%", "5%"]),
        (0.996, 1.0, ["99.6%", "99.7%", "99.8%", "99.9%", "100.0%"]),
    ],
)
def test_ticks_in_percent_have_the_decimals_that_they_need(low, high, expected):
    svg = line_chart("a", [Series("x", HELPFULNESS, [0, 1], [low, high])], XAxis(), YAxis(share=True))
    assert [text for text in texts(svg) if text.endswith("%")] == expected
