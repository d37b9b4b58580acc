"""Charts of answers under a standing instruction."""

from xml.etree import ElementTree

import pytest

from llama2_jax.report.charts import instructions
from llama2_jax.report.svg import SVG

FIELDS = (instructions.KNOWN, instructions.NEW, instructions.ATTENTION)


def version(**fields):
    return {field: {} for field in FIELDS} | fields


def texts(svg):
    return {element.text for element in ElementTree.fromstring(svg).iter(f"{{{SVG}}}text")}


def test_turns_are_in_order_and_those_without_a_value_are_left_out():
    rows = [version(instruction_kept={"10": 0.5, "2": None, "20": None}), version(instruction_kept={"2": 1.0})]
    assert instructions.measured_turns(rows, instructions.KNOWN) == ["2", "10"]
    assert instructions.measured_turns(rows, instructions.NEW) == []


def test_a_line_for_each_turn_of_kept_instructions_and_each_version_of_attention():
    by_turn = {"2": 0.5, "10": 0.25}
    charts = instructions.instruction_charts(
        [version(instruction_kept=by_turn, instruction_attention=by_turn)] * 2, ["SFT", "V5\n+ PPO"]
    )
    assert charts["new_instructions"] is None
    assert {"turn 2", "turn 10", "SFT"} <= texts(charts["instructions"])
    assert {"SFT", "V5 + PPO", "turn", "largest attention weight"} <= texts(charts["instruction_attention"])


@pytest.mark.parametrize("nothing", [{}, {"2": None}])
def test_what_was_not_measured_has_no_chart(nothing):
    charts = instructions.instruction_charts([dict.fromkeys(FIELDS, nothing)], ["SFT"])
    assert charts == {"instructions": None, "new_instructions": None, "instruction_attention": None}
