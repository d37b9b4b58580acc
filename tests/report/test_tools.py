"""The report's table of answers without tools and with them."""

import re

from llama2_jax.evaluation.tool_use import share
from tests.report.made_up_run import made_up_run, write_stage
from tests.report.pages import Page, make_report


def row(with_tools, right, called, calls):
    shares = {
        "right": share(right),
        "called": share(called),
        **dict.fromkeys(("well_formed", "right_calls"), share(calls)),
    }
    return {"version": "rlhf_v5", "set": "three_numbers", "with_tools": with_tools, "questions": 4, **shares}


def test_a_row_for_each_version_and_set(tmp_path):
    yes, no = True, False
    results = {
        "tool_use": [row(False, [yes, no, no, no], [no] * 4, []), row(True, [yes] * 4, [yes, yes, no, no], [yes, no])]
    }
    stage = write_stage(tmp_path, "tools", "tools", results)
    content, page, _ = make_report(tmp_path, {"stages": (*made_up_run(tmp_path)["stages"], stage)})
    assert [one["right"]["share"] for one in content["tools"]] == [0.25, 1.0]
    assert not Page(page).open
    table = re.sub(r"\s+", " ", page[page.index("<h3>Tools") :].partition("</table>")[0])
    assert '<th>rlhf v5</th> <td class="left">three numbers</td> <td>4</td>' in table
    assert re.search(r"<td>25\.0%<small>4\.6% to 69\.9%</small></td> <td>100\.0%<small>", table)
    assert len(re.findall(r"<td>50\.0%<small>", table)) == 3


def test_without_calls_there_are_dashes_and_without_the_stage_no_table(tmp_path):
    (tmp_path / "one").mkdir()
    stage = write_stage(
        tmp_path / "one", "tools", "tools", {"tool_use": [row(w, [True], [False], []) for w in (False, True)]}
    )
    _, page, _ = make_report(tmp_path / "one", {"stages": (stage,)})
    assert page.count("<td>–") >= 2 and "This run has no evaluation" not in page
    (tmp_path / "two").mkdir()
    content, page, _ = make_report(tmp_path / "two", made_up_run(tmp_path / "two"))
    assert content["tools"] == [] and "<h3>Tools" not in page
