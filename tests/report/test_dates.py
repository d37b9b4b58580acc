"""The report's charts by gap and table of answers in time."""

from llama2_jax.evaluation.dates import by_gap
from tests.report.made_up_run import made_up_run, write_stage
from tests.report.pages import Page, make_report


def results():
    rows = [
        {"query_year": year, "event_year": 5, "not_yet": year < 5, "right": year != 6}
        for year in (3, 4, 5, 6) for _ in range(5)
    ]  # fmt: skip
    undated = by_gap([{"event_year": 5, "not_yet": False, "right": True}])
    ordinary = {"prompts": 40, "helpfulness": 0.5, "standard_error": 0.01, "not_yet": 0}
    return {
        "dates": [
            *({"version": version, "set": "held_out", **row} for version in ("sft", "dated") for row in by_gap(rows)),
            *({"version": "dated", "set": "undated", **row} for row in undated),
        ],
        "best_by_one_year": {"held_out": {"query_year": 1.0, "event_year": 0.5}},
        "ordinary": [
            {"version": "sft", **ordinary, "difference": 0.0, "difference_standard_error": 0.0},
            {"version": "dated", **ordinary, "difference": -0.02, "difference_standard_error": 0.005},
        ],
    }


def test_a_chart_for_each_dated_set_and_a_row_for_each_version_and_set(tmp_path):
    stage = write_stage(tmp_path, "dates", "dates", results())
    content, page, _ = make_report(tmp_path, {"stages": (*made_up_run(tmp_path)["stages"], stage)})
    assert len(content["dates"]) == 2 * 5 + 1
    assert not Page(page).open
    assert "A sense of time: held out" in page and "A sense of time: undated" not in page
    table = page[page.index("<h3>Answers in time") :]
    assert table.count('<td class="left">held out</td> <td>20</td>') == 2
    assert "<td>75.0%<small>53.1% to 88.8%</small></td>" in table
    assert '<td class="left">undated</td>' in table and "<td>–</td>" in table
    assert "a difference of -0.020 ± 0.005 (standard error) from sft" in table


def test_a_run_of_this_alone_needs_no_evaluation_and_one_without_it_has_no_table(tmp_path):
    (tmp_path / "one").mkdir()
    _, page, _ = make_report(tmp_path / "one", {"stages": (write_stage(tmp_path / "one", "d", "dates", results()),)})
    assert "This run has no evaluation" not in page
    (tmp_path / "two").mkdir()
    content, page, _ = make_report(tmp_path / "two", made_up_run(tmp_path / "two"))
    assert content["dates"] == content["dates_ordinary"] == [] and "Answers in time" not in page
