"""The tables printed from what is kept of reports are those printed from the whole ones."""

import json

import pytest

from benchmarks import findings, kept_reports, seeds
from tests.report.made_up_run import made_up_run
from tests.report.pages import make_report


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    content, *_ = make_report(folder, made_up_run(folder))
    for name in ("seed_3", "seed_4", "diversity_3"):
        (folder / name / "report").mkdir(parents=True)
        (folder / name / "report" / "report.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("tables", [seeds, findings], ids=["seeds", "findings"])
def test_tables_are_the_same(workdir, tmp_path, tables, monkeypatch, capsys):
    written = kept_reports.keep(workdir, tmp_path, (3, 4, 5))
    assert [path.parent.parent.name for path in written] == ["seed_3", "diversity_3", "seed_4"]
    printed = []
    for folder in (workdir, tmp_path):
        monkeypatch.setattr("sys.argv", ["x", "--workdir", str(folder), "--seeds", "3", "4"])
        tables.main()
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and printed[0].count("\n") > 20


def test_it_is_less(workdir, tmp_path):
    for path in kept_reports.keep(workdir, tmp_path, (3,)):
        whole = workdir / path.relative_to(tmp_path)
        assert path.stat().st_size < whole.stat().st_size
        assert "curves" not in json.loads(path.read_text())["ppo"][0]
