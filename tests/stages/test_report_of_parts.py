"""The report of runs that lack something, and of experiments on a finished run: what they have is shown."""

import json

import pytest
from etils import epath

from llama2_jax.data.records import RATINGS
from llama2_jax.evaluation.measures import HARM, MEASURES, Chart, Measure
from llama2_jax.evaluation.verdicts import summarise
from llama2_jax.pipeline.stage_files import write_json
from llama2_jax.report import plots
from tests.report.made_up_run import evaluated, made_up_run, write_stage
from tests.report.pages import SECTIONS, Page, make_report


@pytest.fixture
def undrawn(monkeypatch):
    """Charts are left empty, which saves seconds where only the text of the page is read."""
    monkeypatch.setattr(plots, "as_svg", lambda name, draw, size=None: "<svg></svg>")


def test_parts_of_the_safety_data(undrawn, tmp_path):
    """Each beside what it reached as a version; one that was not evaluated is listed without."""
    fractions = {"safety_0": 0.0, "safety_100": 1.0, "safety_5": 0.05}
    stages = [
        write_stage(
            epath.Path(tmp_path), name, "safety_scaling",
            {"steps": 40, "safety_data": {"helpfulness": 900, "safety": round(100 * fraction), "safety_of": 100}},
            settings={"safety_fraction": fraction},
        )
        for name, fraction in fractions.items()
    ]  # fmt: skip
    gained = {"mean": 0.25, "standard_error": 0.125, "answers": 4}
    versions = [
        {**evaluated(name, place, 1), "reward_differences": {"safety": gained, "helpfulness": gained}}
        for place, name in enumerate(("safety_0", "safety_100"))
    ]
    source = made_up_run(tmp_path / "source", rounds=1, ppo=False, versions=versions)["stages"]
    content, page, _ = make_report(tmp_path, {"stages": (*stages, source[-1])})
    rows = content["safety_scaling"]
    assert [row["safety_data"]["safety"] for row in rows] == [0, 100, 5]
    assert [row["summary"].get("violations", {}).get("count") for row in rows] == [3, 1, None]
    parsed = Page(page)
    text = " ".join(parsed.text.split())
    reward = rows[0]["summary"]["rewards"]["safety"]
    assert f"0% 0 900 40 {reward['mean']:.3f}± {reward['standard_error']:.3f}, of 4" in text
    assert "100% 100 900 40" in text and "5.0% 5 900 40 – – – – – – –" in text
    assert "0.250± 0.125, of 4 0.250± 0.125, of 4 75.0%" in text
    assert "75.0%± 21.7%, 3 of 4 25.0%± 21.7%, 1 of 4 100.0%1 of 1" in text
    assert "0% to 100%" in text, "the versions are named by their parts"
    assert "More safety data: rewards" in text


def test_reward_models_on_parts_of_the_comparisons(undrawn, tmp_path):
    """They are no round's reward models, and the page of a run that has nothing else shows them."""
    (results,) = [
        json.loads((folder / "stage.json").read_text())["results"]
        for folder in made_up_run(tmp_path / "source", rounds=1, ppo=False)["stages"]
        if folder.name == "rlhf_v1_safety_reward"
    ]
    folders = tuple(
        write_stage(
            epath.Path(tmp_path), f"part_{fraction}", "reward_scaling", results, settings={"prompt_fraction": fraction}
        )
        for fraction in (0.125, 1.0)
    )
    content, page, _ = make_report(tmp_path, {"stages": folders})
    assert content["reward_models"] == []
    assert [(row["prompt_fraction"], row["kind"]) for row in content["reward_scaling"]] == [
        (0.125, "safety"), (1.0, "safety"),
    ]  # fmt: skip
    text = " ".join(Page(page).text.split())
    assert "1/8safety500 91.0%± 4.0%, of 100" in text and "allsafety500" in text
    assert "This run has no reward model." not in text


def test_reward_models_with_one_setting_changed(undrawn, tmp_path):
    source = made_up_run(tmp_path / "source", rounds=1, ppo=False)["stages"]
    changed = {"helpfulness": {"margin": "large"}, "safety": {"margin": "small", "safety_auxiliary_weight": 0.0}}
    folders = []
    for kind, settings in changed.items():
        (record,) = [json.loads((f / "stage.json").read_text()) for f in source if f.name == f"rlhf_v1_{kind}_reward"]
        folders.append(
            write_stage(epath.Path(tmp_path), f"no_{kind}", "reward_ablation", record["results"], settings=settings)
        )
    content, page, _ = make_report(tmp_path, {"stages": tuple(folders)})
    assert content["reward_models"] == content["reward_scaling"] == []
    found = [(row["stage"], row["margin"], row["safety_auxiliary_weight"]) for row in content["reward_ablation"]]
    assert found == [("no_helpfulness", "large", None), ("no_safety", "small", 0.0)]
    text = " ".join(Page(page).text.split())
    unsafe = content["reward_ablation"][1]["tests"]["safety"]["unsafe"]
    assert "Margin and auxiliary loss" in text and "no safetysafetysmall0 91.0%± 4.0%, of 100" in text
    assert f"of {unsafe['unsafe']}" in text and "no helpfulnesshelpfulnesslarge–" in text
    assert "This run has no reward model." not in text


def test_policies_trained_on_comparisons_without_a_reward_model(undrawn, tmp_path):
    tested = dict.fromkeys((*RATINGS, "all"), 0.75)
    results = {
        "comparisons": {"helpfulness": 600, "safety": 400},
        "accuracy": {"helpfulness": {**tested, "better": None}},
        "standard_error": {"helpfulness": {**dict.fromkeys(tested, 0.05), "better": None}},
        "pairs": {"helpfulness": {**dict.fromkeys(tested, 80), "better": 0}},
        "held_out": {"helpfulness": {"margin": 1.25, "chosen_log_ratio": -3.5}},
    }
    metrics = [{"step": 1, "loss": 0.69, "accuracy": 0.5}, {"step": 2, "held_out_accuracy": 0.6}]
    settings = {"beta": 0.1, "label_smoothing": 0.0}
    stage = write_stage(epath.Path(tmp_path), "sft_dpo", "dpo", results, settings=settings, metrics=metrics)
    content, page, _ = make_report(tmp_path, {"stages": (stage,)})
    (row,) = content["dpo"]
    assert row["curves"] == {"loss": [[1, 0.69]], "accuracy": [[1, 0.5]], "held_out_accuracy": [[2, 0.6]]}
    assert (row["stage"], row["beta"], row["pairs"]["helpfulness"]["all"]) == ("sft_dpo", 0.1, 80)
    text = " ".join(Page(page).text.split())
    assert "sft dpohelpfulness0.1001,000 75.0%± 5.0%of 80 – " in text and "1.250-3.500" in text
    assert "Accuracy of the implicit reward" in text


def test_tasks_that_a_model_wrote(undrawn, tmp_path):
    results = {
        "tasks": 30, "calls": 8, "with_input": 12, "left_out": {"alike": 5, "malformed": 2},
        "rounds": [{"calls": 4, "read": 20, "kept": 18}, {"calls": 4, "read": 17, "kept": 12}],
    }  # fmt: skip
    stage = write_stage(epath.Path(tmp_path), "written", "instructions", results)
    content, page, _ = make_report(tmp_path, {"stages": (stage,)})
    assert content["instructions"] == [{"stage": "written", **results}]
    text = " ".join(Page(page).text.split())
    assert "round 241712" in text
    assert "30 tasks of 8 calls, 12 of them with an input. Left out: 5 alike, 2 malformed." in text


def test_perplexities_what_was_left_out_and_releases(undrawn, tmp_path):
    folder = epath.Path(tmp_path)
    row = {
        "version": "full", "perplexity": 1.75, "standard_error": 0.02, "difference": 0.25,
        "difference_standard_error": 0.01, "clipped": 0.125,
    }  # fmt: skip
    stages = (
        write_stage(folder, "curated", "curation", {"kept": 900, "left_out": {"refusal": 7, "short": 3}}),
        write_stage(folder, "release", "release", {
            "quantized": "int4", "bytes": 250, "bytes_before": 1000, "relative_error": {"query": 0.08, "up": 0.09},
        }),
        write_stage(folder, "perplexity", "perplexity", {"perplexity": [row], "dialogues": 40, "too_long": 0}),
    )  # fmt: skip
    content, page, _ = make_report(tmp_path, {"stages": stages})
    assert content["perplexity"] == [row]
    assert content["curation"] == [{"stage": "curated", "kept": 900, "left_out": {"refusal": 7, "short": 3}}]
    (release,) = content["releases"]
    assert (release["quantized"], release["bytes"], release["relative_error"]) == ("int4", 250, 0.09)
    text = " ".join(Page(page).text.split())
    assert "1.750 ± 0.020" in text and "0.250 ± 0.010" in text and "curated: 900 dialogues are kept" in text
    assert "Left out: 7 refusal, 3 short." in text and "release: int4, 25% of the bytes" in text


def test_what_versions_still_know_of_pretraining(undrawn, tmp_path):
    found = [{"version": "sft", "held_out_loss": 1.25}, {"version": "rlhf_v5", "held_out_loss": 1.5}]
    stage = write_stage(epath.Path(tmp_path), "text_loss", "text_loss", {"text_loss": found})
    content, page, _ = make_report(tmp_path, {"stages": (stage,)})
    assert content["text_loss"] == found
    text = " ".join(Page(page).text.split())
    assert "loss on held-out text" in text and "1.250" in text and "1.500" in text


def test_epochs_with_what_their_answers_and_their_loss_say(undrawn, tmp_path):
    epochs = [
        {"epoch": 5, "step": 50, "quality": 0.5, "standard_error": 0.25, "answers": 40, "loss": 1.5},
        {"epoch": 6, "step": 60, "quality": 0.625, "standard_error": 0.125, "answers": 40, "loss": None},
    ]
    results = {"epochs": epochs, "chosen_epoch": 6, "lowest_loss_epoch": 5, "loss_and_quality": 0.25}
    stage = write_stage(epath.Path(tmp_path), "lima", "checkpoint_choice", results)
    content, page, _ = make_report(tmp_path, {"stages": (stage,)})
    assert content["checkpoint_choices"] == [{"stage": "lima", **results}]
    text = " ".join(Page(page).text.split())
    assert "epoch 5500.5000.250401.500 epoch 6, taken600.6250.12540– " in text
    assert "by which epoch 5 would have been taken. The rank correlation of the two is 0.250." in text


def test_a_reward_model_that_was_not_tested_so_has_no_table(undrawn, tmp_path):
    """As in a run that an earlier version of the code made."""
    inputs = made_up_run(tmp_path, rounds=1, ppo=False)
    for folder in inputs["stages"]:
        record = json.loads((folder / "stage.json").read_text())
        record["results"].pop("tests", None)
        record["results"].pop("notes", None)
        write_json(folder / "stage.json", record)
    content, page, _ = make_report(tmp_path, inputs)
    assert content["reward_models"][0]["tests"] == {}
    assert "What the scores are worth" not in page and "Accuracy by rating" in page


def test_page_leaves_out_what_no_version_was_measured_by(undrawn, tmp_path):
    names = ("content", "right", "style", "categories", "seen_helpfulness", "seen_content", "seen_right", "seen_style",
             "seen_violation_rate", "seen_false_refusal_rate", "seen_win_rate_vs_sft", "win_rate_vs_previous",
             "instruction_answers", "new_instruction_kept", "new_instruction_answers",
             "instruction_attention")  # fmt: skip
    rows = [
        {name: value for name, value in evaluated(version, place, 1).items() if name not in names}
        for place, version in enumerate(("sft", "rlhf_v1"))
    ]
    content, page, _ = make_report(tmp_path, made_up_run(tmp_path, rounds=1, ppo=False, versions=rows))
    assert all(not content["versions"][0][name] for name in names)
    text = " ".join(Page(page).text.split())
    assert "By category" not in text
    assert "New instructions" not in text and "Attention to the system message" not in text
    assert "wins over the version before" not in text
    assert "turn 6 SFT50.0% 10.0% 0.0% V1100.0% 100.0% 80.0%" in text
    assert "content ↑" not in text and "helpfulness, seen" not in text and "helpfulness ↑" in text
    assert "on unseen prompts: helpfulness rose from 40.0% to 90.0%." in text


def test_attention_is_shown_where_the_judge_decides_nothing_of_instructions(undrawn, tmp_path):
    rows = [{**evaluated(name, place, 1), "instruction_kept": {"2": None}, "new_instruction_kept": {"2": None}}
            for place, name in enumerate(("sft", "rlhf_v1"))]  # fmt: skip
    _, page, _ = make_report(tmp_path, made_up_run(tmp_path, rounds=1, ppo=False, versions=rows))
    text = Page(page).text
    assert "By turn of the dialogue, the largest attention" in text and "This run has no measure of kept" not in text
    assert "Share of answers that keep" not in text


def test_first_round_alone(undrawn, tmp_path):
    content, page, _ = make_report(tmp_path, made_up_run(tmp_path, rounds=1, ppo=False))
    assert [row["name"] for row in content["versions"]] == ["sft", "rlhf_v1"]
    assert content["ppo"] == []
    text = Page(page).text
    assert "This run has no PPO." in text and "SFT to V1" in " ".join(text.split())


def test_what_was_not_measured_is_null(undrawn, tmp_path):
    bare = [{"name": name, "win_rate_vs_sft": None, "instruction_kept": {"2": None}} for name in ("sft", "rlhf_v1")]
    bare[1]["reward_helpfulness"] = float("nan")
    inputs = made_up_run(tmp_path, rounds=1, ppo=False, versions=bare)
    content, page, _ = make_report(tmp_path, inputs)
    assert content["versions"][1]["helpfulness"] is None and content["versions"][1]["reward_helpfulness"] is None
    assert content["versions"][1]["instruction_kept"] == {"2": None}
    assert "This run has no measure of kept instructions." in Page(page).text


def test_what_was_not_judged_is_noted_on_the_page(undrawn, tmp_path):
    versions = [
        evaluated("sft", 0, 1),
        {**evaluated("rlhf_v1", 1, 1), "helpfulness": None, "notes": ["none & nothing"]},
    ]
    content, page, _ = make_report(tmp_path, made_up_run(tmp_path, rounds=1, ppo=False, versions=versions))
    assert content["versions"][1]["notes"] == ["none & nothing"]
    assert Page(page).text.count("rlhf_v1: none & nothing.") == 1


def test_a_reward_model_without_test_pairs_of_a_domain(undrawn, tmp_path):
    inputs = made_up_run(tmp_path, rounds=1, ppo=False)
    (file,) = [f / "stage.json" for f in inputs["stages"] if f.name == "rlhf_v1_helpfulness_reward"]
    record = json.loads(file.read_text())
    for name in ("accuracy", "standard_error", "pairs"):
        del record["results"][name]["safety"]
    record["results"]["accuracy"]["helpfulness"]["better"] = None
    write_json(file, record)
    row = make_report(tmp_path, inputs)[0]["reward_models"][0]
    assert row["accuracy"]["safety"] == dict.fromkeys((*RATINGS, "all"))
    assert row["accuracy"]["helpfulness"]["better"] is None


def test_nothing_but_pretraining(tmp_path):
    made_up_run(tmp_path)
    content, page, results = make_report(tmp_path, {"stages": (epath.Path(tmp_path) / "pretrain",)})
    assert content["versions"] == [] and results["newest"] is None
    parsed = Page(page)
    assert [name for name in parsed.ids if name in SECTIONS] == list(SECTIONS)
    assert "This run has no evaluation." in parsed.text and parsed.tags.count("svg") == 1


def test_a_stage_of_another_role_is_listed_with_its_time_and_settings(undrawn, tmp_path):
    inputs = made_up_run(tmp_path, rounds=1, ppo=False)
    metrics = [{"step": 1, "loss": 3.0}]
    folders = [
        write_stage(epath.Path(tmp_path), name, role, {}, settings={"beta": 0.25}, seconds=7.0, metrics=metrics)
        for name, role in (("mine_dpo", "dpo"), ("rlhf_v9_ppo", "another"))
    ]
    content, page, _ = make_report(tmp_path, {"stages": (*inputs["stages"], *folders)})
    assert [row["stage"] for row in content["training"]] == ["pretrain", "sft"]
    assert content["ppo"] == [], "the role counts, not the name"
    assert list(content["seconds"].items())[-2:] == [("mine_dpo", 7.0), ("rlhf_v9_ppo", 7.0)]
    text = Page(page).text
    assert "mine dpo" in text and '"beta": 0.25' in text


@pytest.mark.parametrize("chart", [Chart("politeness", "Politeness", "How polite the answers are."), HARM])
def test_a_measure_of_ones_own_takes_one_declaration(tmp_path, chart):
    polite = Measure(
        "polite_share", "polite answers", "higher", verdict="polite", prompts="harmless", headline="says please",
        chart=chart, color="policy",
    )  # fmt: skip
    prompts = [{"safety": False}, {"safety": False}, {"safety": True}]
    versions = [
        evaluated(name, place, 1) | summarise(prompts, [{"polite": value} for value in polites], (polite,))
        for place, (name, polites) in enumerate((("sft", (False, True, True)), ("rlhf_v1", (True, True, False))))
    ]
    inputs = made_up_run(tmp_path, rounds=1, ppo=False, versions=versions, measures=(*MEASURES, polite))
    content, page, results = make_report(tmp_path, inputs)
    assert [row["polite_share"] for row in content["versions"]] == [0.5, 1.0]
    assert results["newest"]["polite_share"] == 1.0
    parsed = Page(page)
    text = " ".join(parsed.text.split())
    assert "polite answers 50% → 100%says please" in text, "a headline"
    assert "polite answers ↑" in text and "100.0%" in text, "a column of the table"
    drawn = page[page.index(f"<h3>{chart.title}</h3>") :]
    svg = drawn[drawn.index("<svg") : drawn.index("</svg>")]
    assert "var(--policy)" in svg and chart.caption in drawn
    assert ("polite answers" in svg) == (chart.name == "harm"), "a legend where there are several lines"
