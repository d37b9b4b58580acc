"""The tables of benchmarks/findings.py say what the reports hold, and nothing of what they do not."""

import json
import re
from xml.etree import ElementTree

import pytest

from benchmarks import findings, findings_plots
from tests.report.made_up_run import made_up_run
from tests.report.pages import make_report


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Two seeds' reports of a made-up run; in the second all is as in the first but PPO's gain."""
    folder = tmp_path_factory.mktemp("seeds")
    content, *_ = make_report(folder, made_up_run(folder))
    for version, name in zip(content["versions"][-2:], ("rlhf_v3", "rlhf_v4"), strict=True):
        version["name"] = name  # without Ghost Attention and with it
    for seed, gain in ((0, 0.02), (1, 0.08)):
        content["ppo"][0]["held_out_gain"] = gain
        (folder / f"seed_{seed}" / "report").mkdir(parents=True)
        (folder / f"seed_{seed}" / "report" / "report.json").write_text(json.dumps(content))
    return folder


def printed(workdir, monkeypatch, capsys, *flags):
    monkeypatch.setattr("sys.argv", ["findings", "--workdir", str(workdir), *flags])
    findings.main()
    *lines, last = capsys.readouterr().out.splitlines()
    return lines, json.loads(last)


def test_every_table_is_of_the_reports_that_have_it(workdir, monkeypatch, capsys):
    lines, counts = printed(workdir, monkeypatch, capsys)
    titles = {title: experiment for title, experiment, *_ in findings.FINDINGS}
    assert [line[4:] for line in lines if line.startswith("### ")] == list(counts)
    assert counts == {title: 2 for title, experiment in titles.items() if experiment == "rlhf_v5"}


def test_a_number_is_the_mean_over_seeds_with_its_interval(workdir, monkeypatch, capsys):
    lines, _ = printed(workdir, monkeypatch, capsys)
    (row,) = [line for line in lines if line.startswith("| rlhf_v2_ppo |")]
    # Student's t for one degree of freedom is 12.706, the mean's standard error 0.03.
    assert row.split(" | ")[3] == f"0.050 ± {12.706 * 0.03:.3f}"
    found = json.loads((workdir / "seed_0" / "report" / "report.json").read_text())
    last = max(found["reward_models"], key=lambda one: (one["round"], one["kind"] == "safety"))
    accuracy = last["accuracy"]["safety"]["all"]
    assert any(line.startswith("| safety model, on safety |") and f"{accuracy:.3f} ± 0.000 |" in line for line in lines)


def test_plots_are_files_of_what_the_reports_have(workdir, tmp_path, monkeypatch, capsys):
    printed(workdir, monkeypatch, capsys, "--plots", str(tmp_path / "figures"))
    written = {path.stem: path.read_text() for path in (tmp_path / "figures").iterdir()}
    assert written.keys() == {plot.name for plot in findings_plots.PLOTS if plot.experiment == "rlhf_v5"}
    for text in written.values():
        root = ElementTree.fromstring(text)
        colors = root.find("{http://www.w3.org/2000/svg}style").text
        used = set(re.findall(r"var\(--(\w+)\)", text))
        assert used and all(f"--{name}: #" in colors for name in used)
    again = {path.stem: path.read_text() for path in (tmp_path / "figures").iterdir()}
    assert again == written


def test_a_plotted_point_is_the_mean_over_seeds_with_its_interval(monkeypatch):
    drawn = []
    monkeypatch.setattr(findings_plots, "line_chart", lambda name, series, x, y: drawn.extend(series))
    plot = findings_plots.Plot(
        "x",
        "rlhf_v5",
        lambda report: [("new, a", [report["value"], None])],
        findings_plots.XAxis(),
        findings_plots.YAxis(),
    )
    findings_plots.draw(plot, [{"value": 0.2}, {"value": 0.4}])
    (line,) = drawn
    assert line.y == [pytest.approx(0.3), None] and line.dashed
    assert line.error == [pytest.approx(12.706 * 0.1, rel=1e-4), 0.0]


def test_of_one_seed_there_is_no_interval(workdir, monkeypatch, capsys):
    lines, counts = printed(workdir, monkeypatch, capsys, "--seeds", "1", "7")
    (row,) = [line for line in lines if line.startswith("| rlhf_v2_ppo |")]
    assert row.split(" | ")[3] == "0.080" and set(counts.values()) == {1}


def test_a_number_that_a_report_lacks_is_left_out():
    def rows(report):
        return [(name, [value, None]) for name, value in report.items()]

    reports = [{"a": 1.0}, {"a": None}, {"a": 3.0, "b": 5.0}]
    head, _, a, b = findings.table(reports, ("first", "second"), rows)
    assert head == "| | first | second |"
    assert a == "| a | 2.000 ± 12.706 | - |" and b == "| b | 5.000 | - |"
    assert findings.table([{"a": None}], ("first", "second"), rows) == []


def test_a_workdir_without_reports_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["findings", "--workdir", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"has no report of the seeds .*run benchmarks\.seeds"):
        findings.main()


def test_experiments_are_run_where_they_are_missing(tmp_path, monkeypatch):
    ran = []

    class Finished:
        returncode = 0

    def run(command, **_):
        ran.append(command)
        return Finished

    monkeypatch.setattr(findings.subprocess, "run", run)
    (tmp_path / "safety_scaling_3" / "report").mkdir(parents=True)
    (tmp_path / "safety_scaling_3" / "report" / "report.json").write_text("{}")
    findings.run_experiments(findings.OF_THE_PAPER, [3], tmp_path)
    assert [command[3] for command in ran] == [
        f"--config=experiments/{name}.py" for name in findings.OF_THE_PAPER if name != "safety_scaling"
    ]
    assert all(f"--config.source_run={tmp_path / 'seed_3'}" in command for command in ran)
    Finished.returncode = 1
    with pytest.raises(SystemExit, match=r"reward_scaling on seed 3 failed; see .*reward_scaling_3\.log"):
        findings.run_experiments(findings.OF_THE_PAPER, [3], tmp_path)


@pytest.mark.parametrize(("flags", "ran"), [((), findings.EXPERIMENTS), (("lima", "dpo"), ["lima", "dpo"])])
def test_all_are_run_or_those_that_are_named(tmp_path, monkeypatch, flags, ran):
    asked = []
    monkeypatch.setattr(findings, "run_experiments", lambda *given: asked.append(given))
    monkeypatch.setattr("sys.argv", ["findings", "--workdir", str(tmp_path), "--seeds", "3", "--run", *flags])
    with pytest.raises(SystemExit, match="has no report"):
        findings.main()
    assert asked == [(ran, [3], tmp_path)]


def test_self_bleu_is_by_kind_version_and_temperature():
    rows = [
        {"version": version, "kind": kind, "temperature": temperature, "self_bleu": 90.0 - 10 * temperature}
        for version in ("sft", "rlhf_v5") for kind in ("factual", "creative") for temperature in (0.2, 1.4)
    ]  # fmt: skip
    found = dict(findings.by_temperature({"diversity": rows}))
    assert list(found) == ["sft, factual", "rlhf_v5, factual", "sft, creative", "rlhf_v5, creative"]
    assert found["sft, factual"] == [88.0, None, None, None, None, None, 76.0]
