"""The report's tables of benchmarks."""

import re

from tests.report.made_up_run import made_up_run, write_stage
from tests.report.pages import make_report


def row(version, column, value, measured, tasks):
    return {"version": version, "column": column, "value": value, "measured": measured, "tasks": tasks}


def of_task(version, task, value, error):
    found = {"version": version, "column": "reading", "task": task, "shots": 0, "metric": "acc", "documents": 40}
    return found | {"value": value, "standard_error": error}


def test_columns_are_a_table_and_tasks_another(tmp_path):
    inputs = made_up_run(tmp_path)
    stage = write_stage(tmp_path, "benchmarks", "benchmarks", {
        "columns": [
            row("sft", "world_knowledge", 0.25, 2, 2), row("sft", "reading", 0.5, 1, 3),
            row("rlhf_v5", "world_knowledge", None, 0, 2), row("rlhf_v5", "reading", 0.75, 3, 3),
        ],
        "tasks": [of_task("sft", "boolq", 0.5, 0.05), of_task("rlhf_v5", "boolq", None, None)],
        "notes": ["quac: ValueError: <no such file>"],
    })  # fmt: skip
    content, page, _ = make_report(tmp_path, {"stages": (*inputs["stages"], stage)})
    assert [row["value"] for row in content["benchmarks"]] == [0.25, 0.5, None, 0.75]
    table = re.sub(r"\s+", " ", page[page.index("<h3>Benchmarks") :])
    assert "<th>world knowledge</th><th>reading</th>" in table
    assert "<tr><td>sft</td><td>25%</td><td>50% (1 of 3)</td></tr>" in table
    assert "<tr><td>rlhf_v5</td><td>– (0 of 2)</td><td>75%</td></tr>" in table
    assert "<td>boolq</td><td>0</td><td>acc</td><td>40</td><td>50% ± 5.0%</td><td>–</td>" in table
    assert "quac: ValueError: &lt;no such file&gt;" in table


def test_without_benchmarks_there_is_no_table(tmp_path):
    content, page, _ = make_report(tmp_path, made_up_run(tmp_path))
    assert content["benchmarks"] == [] and "Benchmarks</h3>" not in page
