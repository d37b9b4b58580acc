"""The whole recipe, shrunk: it runs, and it reports."""

import json

import pytest

from experiments import rlhf_v5
from tests.end_to_end.whole_run import rows, run

pytestmark = pytest.mark.slow

VERSIONS = ["sft", "rlhf_v1", "rlhf_v2", "rlhf_v3", "rlhf_v4", "rlhf_v5_rejection_sampling", "rlhf_v5"]


def test_the_report_tells_what_every_version_reached(finished):
    report = json.loads((finished / "report" / "report.json").read_text())
    assert [version["name"] for version in report["versions"]] == VERSIONS
    measured = {
        "helpfulness", "violation_rate", "false_refusal_rate", "win_rate_vs_sft", "instruction_kept",
        "new_instruction_kept", "win_rate_vs_previous",
        "reward_helpfulness", "reward_safety", "answer_tokens",
    }  # fmt: skip
    for version in report["versions"]:
        assert measured <= version.keys()
        assert 0 <= version["helpfulness"] <= 1 and 0 <= version["violation_rate"] <= 1
        assert version["instruction_kept"].keys() == {"2"}
        assert 0 < version["instruction_attention"]["2"] < 1
        # What helpfulness is made of, on questions that training does not ask and on those that it does.
        assert all(0 <= version[f"{seen}{part}"] <= 1 for seen in ("", "seen_") for part in ("content", "style"))
    assert (report["evaluation_prompts"], report["seen_prompts"]) == (40, 13)
    assert "on unseen prompts: helpfulness" in (finished / "report" / "index.html").read_text()


def test_the_report_has_two_reward_models_a_round(finished):
    report = json.loads((finished / "report" / "report.json").read_text())
    models = [(model["round"], model["kind"]) for model in report["reward_models"]]
    assert models == [(number, kind) for number in range(1, 6) for kind in ("helpfulness", "safety")]
    held_out = [annotation["test_comparisons"] for annotation in report["annotations"]]
    for model in report["reward_models"]:
        pairs = sum(model["pairs"][domain]["all"] or 0 for domain in ("helpfulness", "safety"))
        assert pairs == sum(held_out[: model["round"]]) - model["left_out"]["same_tokens_in_test"]
    assert len(report["annotations"]) == len(report["rejection_sampling"]) == 5
    assert len(report["ppo"]) == 1


def test_the_report_has_the_seconds_of_every_stage(finished):
    report = json.loads((finished / "report" / "report.json").read_text())
    assert set(report["seconds"]) == set(rlhf_v5.get_config().stages) - {"report"}
    assert all(seconds > 0 for seconds in report["seconds"].values())


def test_every_row_that_was_sampled_says_where_it_comes_from(finished):
    configured = set(rlhf_v5.get_config().rlhf_v1_annotation.temperatures)
    for number in range(1, 6):
        for row in rows(finished / f"rlhf_v{number}_annotation" / "comparisons.jsonl"):
            temperatures = {version["temperature"] for version in row["sources"].values()}
            assert len(temperatures) == 2 and temperatures <= configured
        for row in rows(finished / f"rlhf_v{number}_rejection_sampling" / "samples.jsonl"):
            assert row["round"] == number and row["response_tokens"][-1] == 2  # EOS


def test_no_prompt_is_held_out_in_one_round_and_trained_on_in_another(finished):
    prompts = {
        name: {
            json.dumps(row["messages"])
            for number in range(1, 6)
            for row in rows(finished / f"rlhf_v{number}_annotation" / f"{name}.jsonl")
        }
        for name in ("comparisons", "comparisons_test")
    }
    assert prompts["comparisons_test"] and not prompts["comparisons"] & prompts["comparisons_test"]


def test_from_the_fourth_round_on_the_bag_is_of_all_rounds(finished):
    sampled = {
        number: {
            json.dumps(row["messages"]) for row in rows(finished / f"rlhf_v{number}_rejection_sampling/samples.jsonl")
        }
        for number in range(1, 6)
    }
    for number in range(1, 6):
        bag = rows(finished / f"rlhf_v{number}_rejection_sampling" / "bag.jsonl")
        allowed = range(1, number + 1) if number >= 4 else (number,)
        assert {row["round"] for row in bag} <= set(allowed)
        assert len(bag) == min(30, len(set().union(*(sampled[earlier] for earlier in allowed))))
        assert len({json.dumps(row["messages"]) for row in bag}) == len(bag), "one answer to a prompt"


def test_a_second_call_runs_nothing(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    records = run(finished)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert list(records) == list(rlhf_v5.get_config().stages)
