"""The model card has every field of the paper's (table 52), filled from the run's records."""

import json

import pytest
from ml_collections import ConfigDict

from llama2_jax.evaluation.measures import MEASURES
from llama2_jax.models.config import parameter_count
from llama2_jax.report.content import build_report, evaluated_measures
from llama2_jax.report.model_card import NOT_STATED, model_card
from llama2_jax.stages import report
from llama2_jax.stages.report import read_stage
from tests.report.made_up_run import made_up_run, write_stage
from tests.report.pages import MODEL, make_report

# Table 52, in its order; hardware and carbon, training data, results and considerations are sections of their own.
FIELDS = (
    "Model developers", "Variations", "Input", "Output", "Model architecture", "Model dates", "Status", "License",
    "Where to send comments", "Intended use cases", "Out-of-scope uses", "Training factors", "Carbon footprint",
)  # fmt: skip
SECTIONS = (
    "Model details", "Intended use", "Hardware and software", "Training data", "Evaluation results",
    "Ethical considerations and limitations",
)  # fmt: skip


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return [read_stage(folder) for folder in made_up_run(workdir)["stages"]]


def card_of(stages, stated=(), **changes):
    records = {stage.name: {**stage.record, **changes} for stage in stages}
    content = build_report(stages, 3, MODEL)
    return model_card(content, evaluated_measures(stages), records, dict(stated))


def fields(card):
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in card.splitlines() if line[:2] == "| "]
    return {row[0]: row[1] for row in cells if len(row) == 2}


def test_the_stage_writes_every_field_of_table_52(tmp_path):
    make_report(tmp_path, made_up_run(tmp_path))
    card = (tmp_path / "report" / "model_card.md").read_text()
    assert [name for name in fields(card) if name] == list(FIELDS)
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(SECTIONS)
    assert "None" not in card and "{" not in card


def test_fields_say_what_the_records_say(stages):
    card = card_of(stages)
    found = fields(card)
    assert f"{parameter_count(MODEL):,} parameters" in found["Model architecture"]
    assert "rejection sampling" in found["Model architecture"] and "policy optimisation" in found["Model architecture"]
    assert found["Variations"] == "sft, rlhf_v1, rlhf_v2_rejection_sampling, rlhf_v2"
    assert found["Training factors"] == "llama2_jax, python 3.11.2, jax 0.10.2"
    seconds = sum(stage.record["seconds"] for stage in stages)
    kilograms = seconds / 3600 * 8 * 0.7 * 1.1 * 0.385  # table 2, of 8 devices of 700 W
    assert float(found["Carbon footprint"].split(" kg")[0]) == pytest.approx(kilograms, abs=5e-4)
    assert found["License"] == found["Model dates"] == NOT_STATED


def test_results_are_a_row_for_each_version_over_unseen_prompts(stages):
    card = card_of(stages)
    wanted = [one.title for one in MEASURES if one.verdict and not one.seen]
    (header,) = [line for line in card.splitlines() if line.startswith("| version |")]
    assert [cell.strip() for cell in header.strip("|").split("|")][1:] == wanted
    rows = [line for line in card.splitlines() if line.startswith("| rlhf_v2 |")]
    assert len(rows) == 1 and rows[0].count("|") == header.count("|")
    assert "rlhf_v2, violations: " in card.split("limitations")[-1]


def test_what_a_person_says_stays_in_its_cell(stages):
    card = card_of(stages, {"license": "MIT | or\nBSD", "contact": "us"}, finished="2026-01-02T03:04:05+00:00")
    assert "| License | MIT \\| or BSD |" in card and "| Where to send comments | us |" in card
    assert "from 2026-01-02T03:04:05+00:00 to 2026-01-02T03:04:05+00:00" in fields(card)["Model dates"]


def test_an_unknown_field_is_refused_by_name_before_anything_runs():
    with pytest.raises(ValueError, match="model_card has no field licence; it has developers, license"):
        report.check(ConfigDict({"model_card": {"licence": "MIT"}}), {}, None)


def test_a_source_that_several_stages_train_on_is_listed_once(tmp_path):
    people = {"preferences": {"people": {"path": "/data/pairs.jsonl", "format": "preferences"}}}
    names = ("rlhf_v1_safety_reward", "rlhf_v2_safety_reward")
    folders = [write_stage(tmp_path, name, "reward_model", {}, settings=people) for name in names]
    card = card_of([read_stage(folder) for folder in folders])
    assert [line for line in card.splitlines() if "pairs.jsonl" in line] == [
        "| rlhf_v1_safety_reward | people | /data/pairs.jsonl | – |"
    ]


def test_sources_are_named_with_their_counts_and_a_run_without_evaluation_says_so(tmp_path):
    sources = {"web": {"path": "/data/web.jsonl", "format": "text"}, "made": {"function": "a.b", "format": "text"}}
    results = {"documents": {"web": 1200}, "tokens_trained_on": 5_000_000}
    folder = write_stage(tmp_path, "pretrain", "pretraining", results, settings={"sources": sources})
    card = card_of([read_stage(folder)])
    assert "| pretrain | web | /data/web.jsonl | 1,200 |" in card and "| pretrain | made | a.b | – |" in card
    assert "Pretraining read 5,000,000 tokens." in card and "pretrained only" in card
    assert "This run had no evaluation." in card and "Neither its helpfulness nor its safety was measured." in card
    assert json.loads((folder / "stage.json").read_text())["results"] == results
