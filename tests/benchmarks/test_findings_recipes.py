"""The tables of the other recipes say what their reports hold; each page's versions are those that they compare."""

import importlib
import json

import pytest

from benchmarks import findings, kept_reports
from benchmarks.findings_recipes import COMPARED, MEASURES, of_epochs, of_imitations, of_steps, versions
from llama2_jax.evaluation.measures import MEASURES as JUDGED


def version(name, number, **fields):
    return {"name": name, **dict.fromkeys(MEASURES, number), **fields}


@pytest.fixture
def workdir(tmp_path):
    """Three seeds of Vicuna: its two versions are 0.1, 0.2 and 0.3 apart, and further from seed to seed."""
    for seed, (last, gain) in enumerate(((0.2, 0.1), (0.6, 0.2), (0.4, 0.3))):
        content = {"versions": [version("all_turns", last + gain), version("last_turn", last)]}
        for name in ("seed", "vicuna"):
            (tmp_path / f"{name}_{seed}" / "report").mkdir(parents=True)
        (tmp_path / f"vicuna_{seed}" / "report" / "report.json").write_text(json.dumps(content))
    return tmp_path


def printed(workdir, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["findings", "--workdir", str(workdir)])
    findings.main()
    *lines, last = capsys.readouterr().out.splitlines()
    return lines, json.loads(last)


def test_a_difference_has_an_interval_of_its_own(workdir, monkeypatch, capsys):
    lines, counts = printed(workdir, monkeypatch, capsys)
    assert counts == {"Vicuna: the loss on all answers": 3}
    # Student's t for two degrees of freedom is 4.303, the differences' deviation 0.1, that of the second version 0.2.
    rows = {line.split(" | ")[0]: line.split(" | ")[1] for line in lines if line.startswith("| ")}
    assert rows["| all_turns less last_turn"] == f"0.200 ± {4.3027 * 0.1 / 3**0.5:.3f}"
    assert rows["| last_turn"] == f"0.400 ± {4.3027 * 0.2 / 3**0.5:.3f}"


def test_kept_reports_give_the_same_tables(workdir, tmp_path_factory, monkeypatch, capsys):
    kept = tmp_path_factory.mktemp("kept")
    assert len(kept_reports.keep(workdir, kept, (0, 1, 2))) == 3
    assert printed(kept, monkeypatch, capsys) == printed(workdir, monkeypatch, capsys)


def test_what_one_of_two_versions_does_not_have_has_no_difference():
    report = {"versions": [version("rlhf_v5", 0.5), version("sft_dpo", 0.2, style=None)]}
    rows = dict(versions("dpo")(report))
    assert list(rows) == ["rlhf_v5", "sft_dpo", "sft_dpo less rlhf_v5"]
    assert rows["sft_dpo less rlhf_v5"] == [None if name == "style" else pytest.approx(-0.3) for name in MEASURES]


def test_right_answers_are_by_the_kind_of_question():
    categories = {"three_numbers": {"right": 0.9}, "unseen": {"right": 0.1}, "fact": {"right": 0.8}}
    row = {"name": "orca", "categories": categories, "tone": 0.3, "overlap": 0.2, "as_long": None}
    assert dict(of_steps({"versions": [row]})) == {"orca": [0.9, 0.1]}
    assert dict(of_imitations({"versions": [row]})) == {"orca": [0.3, 0.2, None, 0.8, None]}


def test_the_epoch_of_the_lowest_loss_beside_that_of_the_best_answers():
    epochs = [
        {"epoch": epoch, "loss": loss, "quality": quality}
        for epoch, loss, quality in ((1, 0.9, 0.1), (2, 0.5, 0.4), (3, 0.7, 0.6))
    ]
    rows = dict(of_epochs({"checkpoint_choices": [{"stage": "lima", "epochs": epochs}]}))
    assert rows == {"lima": [2, 3, pytest.approx(0.2)]}


def test_measures_are_those_of_the_judge():
    assert set(MEASURES) <= {key for measure in JUDGED for key in measure.keys}


@pytest.mark.parametrize("name", findings.EXPERIMENTS)
def test_every_experiment_is_a_page(name):
    assert callable(importlib.import_module(f"experiments.{name}").get_config)


@pytest.mark.parametrize("page", COMPARED)
def test_versions_that_are_compared_are_the_page_s(page):
    config = importlib.import_module(f"experiments.{page}").get_config()
    evaluations = [config[stage] for stage in config.stages if config[stage].role == "evaluation"]
    names = {name for evaluation in evaluations for name in evaluation.versions}
    assert {name for pair in COMPARED[page] for name in pair} <= names
