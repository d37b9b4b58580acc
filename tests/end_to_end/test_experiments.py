"""The experiments on what a finished run of the recipe left."""

import json

import jax
import numpy as np
import pytest

from experiments import (
    alpaca,
    bag_ablation,
    benchmarks,
    best_of_n,
    dates,
    distillation,
    diversity,
    dpo,
    grpo,
    head_to_head,
    instructgpt,
    koala,
    lima,
    orca,
    reward_ablation,
    reward_scaling,
    safety_scaling,
    safety_sets,
    tools,
    vicuna,
)
from llama2_jax import recipe
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.model_folder import load_model, tokenizer_path
from tests.end_to_end.whole_run import rows
from tests.smallest import shrink

pytestmark = pytest.mark.slow


def test_a_smaller_model_learns_from_the_best_samples_of_a_larger_one(finished, tmp_path):
    """One layer from two, up to PPO, which is as in the other runs; tests/experiments/test_distillation.py has more."""
    config = shrink(distillation.get_config())
    config.model.layers = 1
    config.teacher = str(finished)
    records = recipe.run(config, str(tmp_path), until="rlhf_v5_safety_reward")
    for number in range(1, 6):
        imported = tmp_path / f"teacher_rlhf_v{number}_rejection_sampling"
        teacher = finished / f"rlhf_v{number}_rejection_sampling"
        assert rows(imported / "bag.jsonl") == rows(teacher / "bag.jsonl")
        student = f"rlhf_v{number}_distillation"
        assert records[student]["results"]["dialogues"][imported.name] == len(rows(teacher / "bag.jsonl")) > 0
        assert (load_model(tmp_path / student).config.layers, load_model(teacher).config.layers) == (1, 2)
    compared = [row for n in range(1, 6) for row in rows(finished / f"rlhf_v{n}_annotation" / "comparisons.jsonl")]
    seen = records["rlhf_v5_safety_reward"]["results"]["comparisons"]
    assert seen["safety"] >= sum(row["domain"] == "safety" for row in compared) > 0


def test_reward_models_learn_from_parts_of_another_run_s_comparisons(finished, tmp_path):
    config = shrink(reward_scaling.get_config())
    config.source_run = str(finished)
    config.stages = tuple(name for name in config.stages if not ("_quarter" in name or "_half" in name))
    config.report.inputs.stages = config.stages[:-1]
    records = recipe.run(config, str(tmp_path))
    report = json.loads((tmp_path / "report" / "report.json").read_text())["reward_scaling"]
    for kind in ("helpfulness", "safety"):
        trained_on = [sum(row["comparisons"].values()) for row in report if row["kind"] == kind]
        assert 0 < trained_on[0] < trained_on[-1] and trained_on == sorted(trained_on)
        whole = json.loads((finished / f"rlhf_v5_{kind}_reward" / "stage.json").read_text())["results"]
        assert trained_on[-1] == sum(whole["comparisons"].values()), "of two domains, in a mix of its own"
        for name in ("pairs", "left_out"):
            assert records[f"{kind}_reward_all"]["results"][name] == whole[name]


def test_reward_models_learn_with_another_margin_and_without_the_auxiliary_loss(finished, tmp_path):
    config = shrink(reward_ablation.get_config())
    config.source_run = str(finished)
    records = recipe.run(config, str(tmp_path))
    report = json.loads((tmp_path / "report" / "report.json").read_text())["reward_ablation"]
    assert [row["stage"] for row in report] == [*reward_ablation.ABLATIONS]
    assert [row["margin"] for row in report[:3]] == ["none", "small", "large"]
    weights = [jax.tree.leaves(load_model(tmp_path / row["stage"]).params)[0] for row in report]
    assert all(not np.array_equal(weights[0], other) for other in weights[1:3])
    assert not np.array_equal(weights[3], weights[4])
    for row in report:
        own = json.loads((finished / f"rlhf_v5_{row['kind']}_reward" / "stage.json").read_text())["results"]
        assert records[row["stage"]]["results"]["pairs"] == own["pairs"], "the same test for all"


def test_the_fourth_version_on_the_last_round_s_answers_and_on_all(finished, tmp_path):
    config = shrink(bag_ablation.get_config())
    config.source_run = str(finished)
    records = recipe.run(config, str(tmp_path))
    fourth = finished / "rlhf_v4_rejection_sampling"
    for name, file in (("rlhf_v4_last_round", "samples.jsonl"), ("rlhf_v4_all_rounds", "bag.jsonl")):
        trained_on = records[name]["results"]["dialogues"]
        assert trained_on["rlhf_v4_rejection_sampling"] == len(rows(fourth / file)) > 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["name"] for row in report["versions"]] == [
        "sft", "rlhf_v3", "rlhf_v4_last_round", "rlhf_v4_all_rounds",
    ]  # fmt: skip
    assert all(row["helpfulness"] is not None for row in report["versions"])


def test_parts_of_another_run_s_safety_data_are_trained_on_beside_all_of_the_rest(finished, tmp_path):
    config = shrink(safety_scaling.get_config())
    config.source_run = str(finished)
    recipe.run(config, str(tmp_path))
    report = json.loads((tmp_path / "report" / "report.json").read_text())["safety_scaling"]
    assert [row["safety_fraction"] for row in report] == [0, 0.01, 0.1, 0.25, 0.5, 1]
    taken = [row["safety_data"]["safety"] for row in report]
    assert taken[0] == 0 < taken[-1] == report[0]["safety_data"]["safety_of"] and taken == sorted(taken)
    whole = json.loads((finished / "rlhf_v5_rejection_sampling" / "stage.json").read_text())["results"]
    # The parts are taken before what is too long for the shrunk context is left out.
    dialogues = sum(whole["dialogues"].values()) + sum(whole["too_long"].values())
    for row in report:
        assert row["safety_data"]["helpfulness"] == dialogues - taken[-1]
        assert row["summary"]["rewards"]["safety"]["answers"] > 0


def test_policies_learn_from_another_run_s_comparisons_without_a_reward_model(finished, tmp_path):
    config = shrink(dpo.get_config())
    config.source_run = str(finished)
    records = recipe.run(config, str(tmp_path))
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["stage"] for row in report["dpo"]] == list(dpo.TRAINED)
    compared = [row for n in range(1, 6) for row in rows(finished / f"rlhf_v{n}_annotation" / "comparisons.jsonl")]
    for row in report["dpo"]:
        left_out = records[row["stage"]]["results"]["left_out"]
        assert sum(row["comparisons"].values()) == len(compared) - left_out["same_tokens"] > 0
        assert len(row["curves"]["loss"]) > 1 and row["curves"]["held_out_accuracy"]
    assert [row["name"] for row in report["versions"]] == list(dpo.VERSIONS)
    assert all(row["helpfulness"] is not None for row in report["versions"])
    assert "Direct preference optimisation" in (tmp_path / "report" / "index.html").read_text()


def test_tasks_that_the_base_model_writes_are_learnt_in_another_chat_format(finished, tmp_path):
    config = shrink(alpaca.get_config())
    config.source_run = str(finished)
    config.instructions.update({"calls_per_round": 4, "most_calls": 8, "max_new_tokens": 24, "tasks_shown": 2})
    records = recipe.run(config, str(tmp_path))
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    (row,) = report["instructions"]
    assert row["calls"] == 8 and row["tasks"] == len(rows(tmp_path / "instructions" / "dialogues.jsonl"))
    trained_on = {name: records[name]["results"]["dialogues"] for name in ("seed_tasks", "alpaca", "demonstrations")}
    assert trained_on["alpaca"] == {"seeds": 40, "instructions": row["tasks"]}
    assert trained_on["demonstrations"] == {"seeds": 40, "public": 20}
    assert json.loads((tmp_path / "chat_tokenizer" / "chat_format.json").read_text()) == {"name": "alpaca"}
    assert [row["name"] for row in report["versions"]] == ["seed_tasks", "alpaca", "demonstrations"]
    assert "Instructions that a model wrote" in (tmp_path / "report" / "index.html").read_text()


def test_a_policy_learns_from_rankings_of_another_run_s_model_and_from_its_pretraining_text(finished, tmp_path):
    config = shrink(instructgpt.get_config())
    config.source_run = str(finished)
    records = recipe.run(config, str(tmp_path))
    ranked = records["rankings"]["results"]
    assert 50 < ranked["judged_answers"] <= 60 and ranked["comparisons"] > 2 * ranked["prompts"]
    reward = records["ranked_reward"]["results"]
    assert 0 < reward["rankings"] <= ranked["prompts"] and reward["demonstrations"] == 8
    metrics = {name: rows(tmp_path / name / "metrics.jsonl") for name in instructgpt.TRAINED}
    assert any("policy_pretraining_loss" in row for row in metrics["instructgpt"])
    assert not any("policy_pretraining_loss" in row for row in metrics["instructgpt_without_ptx"])
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["name"] for row in report["versions"]] == list(instructgpt.VERSIONS)
    assert [row["version"] for row in report["text_loss"]] == ["pretrain", *instructgpt.VERSIONS]
    assert all(row["held_out_loss"] > 0 for row in report["text_loss"])
    assert "loss on held-out text" in (tmp_path / "report" / "index.html").read_text()


def test_the_best_of_several_answers_has_the_higher_reward(finished, tmp_path):
    config = shrink(best_of_n.get_config())
    config.source_run = str(finished)
    recipe.run(config, str(tmp_path))
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["name"] for row in report["versions"]] == list(best_of_n.VERSIONS)
    answers = {name: rows(tmp_path / "evaluation" / f"answers_{name}.jsonl") for name in best_of_n.VERSIONS}
    assert {len(of_version) for of_version in answers.values()} == {report["evaluation_prompts"]}
    once, four, most = (answers[name] for name in ("sft", "sft_best_of_4", "sft_best_of_64"))
    # An answer that ends in time comes before any that does not: models so small end few of theirs.
    ended = [sum(row["finished"] for row in of_version) for of_version in (once, four, most)]
    assert ended == sorted(ended) and ended[0] < ended[-1]
    both = [pair for pair in zip(four, most, strict=True) if all(row["finished"] for row in pair)]
    assert both and np.mean([b["rewards"]["combined"] - a["rewards"]["combined"] for a, b in both]) > 0


def test_groups_of_answers_in_the_place_of_another_run_s_critic(finished, tmp_path):
    config = shrink(grpo.get_config())
    config.source_run = str(finished)
    recipe.run(config, str(tmp_path))
    measured = rows(tmp_path / "grpo" / "metrics.jsonl")
    assert len([row for row in measured if "equal_groups" in row]) == 4
    assert not [name for row in measured for name in row if name.startswith("critic")]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["name"] for row in report["versions"]] == list(grpo.VERSIONS)
    assert [row["stage"] for row in report["ppo"]] == ["grpo"]


def test_the_versions_answers_are_compared_pair_by_pair(finished, tmp_path):
    config = shrink(head_to_head.get_config())
    config.source_run = str(finished)
    recipe.run(config, str(tmp_path))
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    # Each over SFT, and those from V2 on over the version before; by three judges.
    assert len(report["head_to_head"]) == 3 * (6 + 5) and len(report["head_to_head_agreement"]) == 6 + 5
    evaluated = {
        row["name"]: row for row in json.loads((finished / "evaluation" / "evaluation.json").read_text())["versions"]
    }
    for row in report["head_to_head"]:
        assert row["wins"] + row["ties"] + row["losses"] == 40
        assert row["version"] in evaluated and row["over"] in evaluated
    assert "Head to head" in (tmp_path / "report" / "index.html").read_text()


def test_answers_of_five_versions_are_compared_with_each_other(finished, tmp_path):
    config = shrink(diversity.get_config())
    config.source_run = str(finished)
    config.diversity.update({"temperatures": (0.5, 1.0), "answers_per_prompt": 3, "prompts_per_kind": 2})
    recipe.run(config, str(tmp_path))
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert len(report["diversity"]) == 5 * 2 * 2
    assert all(0 <= row["self_bleu"] <= 100.001 for row in report["diversity"])
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Diversity of answers to factual prompts" in page and "Diversity of answers to creative prompts" in page


def test_two_models_are_asked_in_years_before_and_after_events(finished, tmp_path):
    config = shrink(dates.get_config())
    config.source_run = str(finished)
    recipe.run(config, str(tmp_path))
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    asked = {(row["version"], row["set"]): row["questions"] for row in report["dates"] if row["gap"] is None}
    assert {version for version, _ in asked} == {row["version"] for row in report["dates_ordinary"]} == {
        "sft", "undated", "dated",
    }  # fmt: skip
    assert all(0 < questions <= 64 for questions in asked.values())
    page = (tmp_path / "report" / "index.html").read_text()
    assert "A sense of time: held out" in page and "A sense of time: undated" not in page


def test_the_models_of_a_run_are_measured_on_benchmarks(finished, tmp_path):
    (tmp_path / "data" / "benchmarks" / "piqa").mkdir(parents=True)
    piqa = tmp_path / "data" / "benchmarks" / "piqa"
    piqa.joinpath("valid.jsonl").write_text('{"goal": "Sit.", "sol1": "A chair.", "sol2": "A fish."}\n' * 3)
    piqa.joinpath("valid-labels.lst").write_text("0\n1\n0\n")
    config = shrink(benchmarks.get_config())
    config.source_run = str(finished)
    config.data.root = str(tmp_path / "data")
    recipe.run(config, str(tmp_path / "run"))
    report = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    measured = {row["version"]: row["value"] for row in report["benchmark_tasks"] if row["task"] == "piqa"}
    assert set(measured) == {"pretrain", "sft", "rlhf_v5"}
    # The three documents are the same, so a model is right in two of them or in one.
    assert all(value in (1 / 3, 2 / 3) for value in measured.values())
    (column,) = {(row["value"] is None, row["measured"]) for row in report["benchmarks"] if row["column"] == "mmlu"}
    assert column == (True, 0) and any("mmlu" in note for note in report["benchmark_notes"])


def test_sums_are_asked_without_the_calculator_and_with_it_before_the_calls_are_shown_and_after(finished, tmp_path):
    config = shrink(tools.get_config())
    config.source_run = str(finished)
    recipe.run(config, str(tmp_path))
    rows = json.loads((tmp_path / "report" / "report.json").read_text())["tools"]
    assert {(row["version"], row["set"], row["with_tools"]) for row in rows} == {
        (version, kind, with_tools)
        for version in ("rlhf_v5", "tool_sft")
        for kind in ("unseen", "larger", "three_numbers")
        for with_tools in (False, True)
    }
    assert all(0 < row["questions"] <= 40 for row in rows)
    assert "right without tools" in (tmp_path / "report" / "index.html").read_text()


def test_false_refusals_of_five_versions_and_how_well_refusals_are_found(finished, tmp_path):
    config = shrink(safety_sets.get_config())
    config.source_run = str(finished)
    recipe.run(config, str(tmp_path))
    (row,) = json.loads((tmp_path / "report" / "report.json").read_text())["safety_sets"]
    assert len(row["groups"]) == 5 and row["refusal_classifier"]["all"]["recall"]["share"] == 1.0


def chat_format_of(stage):
    return Tokenizer.load(tokenizer_path(stage)).chat_format.name


def test_the_best_of_few_good_examples_epochs_is_chosen_and_compared_with_many_poor_ones(finished, tmp_path):
    config = shrink(lima.get_config())
    config.source_run = str(finished)
    versions = ("lima", "unfiltered")
    config.stages = tuple(
        name for name in config.stages
        if config[name].role not in ("finetuning", "checkpoint_choice")
        or name in (*versions, *(f"{one}_training" for one in versions))
    )  # fmt: skip
    for name in versions:
        config[f"{name}_training"].finetune.update({"epochs": 4, "kept_epochs": (1, 4) if name == "lima" else (2, 3)})
        config[name].epochs = (2, 3)
    config.evaluation.versions = config.evaluation.inputs.models = versions
    config.report.inputs.stages = config.stages[:-1]
    records = recipe.run(config, str(tmp_path))
    for name in versions:
        results = records[name]["results"]
        assert [one["epoch"] for one in results["epochs"]] == ([1, 2, 3, 4] if name == "lima" else [2, 3])
        chosen = next(one for one in results["epochs"] if one["epoch"] == results["chosen_epoch"])
        assert chosen["quality"] == max(one["quality"] for one in results["epochs"] if one["epoch"] in (2, 3))
        trained = load_model(tmp_path / f"{name}_training", step=chosen["step"]).params
        jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / name).params, trained)
        assert chat_format_of(tmp_path / name) == "lima"
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["name"] for row in report["versions"]] == list(versions)
    assert all(row["helpfulness"] is not None and "reward_general" not in row for row in report["versions"])
    assert [row["stage"] for row in report["checkpoint_choices"]] == list(versions)
    # Where the choice was cut off behind two epochs, it ends with the same.
    shards = tmp_path / "lima" / "shards" / "epochs"
    (tmp_path / "lima" / "stage.json").unlink()
    for first, one in enumerate(records["lima"]["results"]["epochs"][:2]):
        shards.mkdir(parents=True, exist_ok=True)
        (shards / f"{first}.jsonl").write_text(json.dumps(one) + "\n")
    assert recipe.run(config, str(tmp_path), until="lima")["lima"]["results"] == records["lima"]["results"]


def test_conversations_are_cleaned_and_split_and_trained_on_in_all_answers_or_the_last(finished, tmp_path):
    config = shrink(vicuna.get_config())
    config.source_run = str(finished)
    for name in vicuna.LOSSES:
        config[name].finetune.too_long = "split"
    records = recipe.run(config, str(tmp_path))
    results = [records[name]["results"] for name in vicuna.LOSSES]
    assert results[0]["dialogues"] == results[1]["dialogues"] and results[0]["dialogues"]["sharegpt"] > 0
    assert results[0]["answer_tokens"] > results[1]["answer_tokens"] > 0
    assert chat_format_of(tmp_path / "all_turns") == "vicuna"
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["name"] for row in report["versions"]] == list(vicuna.LOSSES)
    assert "in the format vicuna" in (tmp_path / "report" / "model_card.md").read_text()


def test_a_model_of_marked_answers_is_asked_under_both_markers(finished, tmp_path):
    config = shrink(koala.get_config())
    config.source_run = str(finished)
    records = recipe.run(config, str(tmp_path))
    dialogues = records["koala"]["results"]["dialogues"]
    assert dialogues.keys() == {"sharegpt", "helpful", "unhelpful"}
    assert dialogues["helpful"] > 0 < dialogues["unhelpful"]
    markers = {"koala_unhelpful": {"an unhelpful answer"}, "koala": set()}
    for evaluation, (name, marker) in zip(("unhelpful_evaluation", "evaluation"), markers.items(), strict=True):
        asked = rows(tmp_path / evaluation / f"answers_{name}.jsonl")
        assert asked and {m["content"] for row in asked for m in row["messages"] if m["role"] == "system"} == marker
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["name"] for row in report["versions"]] == [*markers]
    assert chat_format_of(tmp_path / "koala") == "koala_marked"


def test_two_teachers_in_order_and_questions_of_several_steps(finished, tmp_path):
    config = shrink(orca.get_config())
    config.source_run = str(finished)
    records = recipe.run(config, str(tmp_path))
    evaluated = records["evaluation"]["results"]["versions"]
    assert [row["name"] for row in evaluated] == ["orca_first", "orca", "bare", "stronger_alone"]
    for row in evaluated:
        assert row["categories"].keys() == {"three_numbers", "unseen"}
        assert all(0 <= one["right"] <= 1 for one in row["categories"].values())
    assert (tmp_path / "report" / "index.html").exists()
