"""The report of made-up runs: the content of report.json, and that the page shows it, complete and escaped."""

import json

import pytest

from llama2_jax.stages import report
from tests.report.made_up_run import evaluated, made_up_run
from tests.report.pages import SECTIONS, Page, make_report


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return make_report(workdir, made_up_run(workdir))


def test_versions_hold_what_the_evaluation_measured(whole):
    content, _, results = whole
    assert [row["name"] for row in content["versions"]] == ["sft", "rlhf_v1", "rlhf_v2_rejection_sampling", "rlhf_v2"]
    assert content["versions"][3] == evaluated("rlhf_v2", 3, 3)
    assert content["versions"][0]["win_rate_vs_sft"] is None
    assert (content["evaluation_prompts"], content["seen_prompts"]) == (5, 1)
    assert (content["dialogues"], content["seen_dialogues"]) == (20, 12)
    assert results == {"page": "index.html", "newest": content["versions"][3]}


def test_reward_models_are_sorted_and_complete(whole):
    rows = whole[0]["reward_models"]
    assert [(row["round"], row["kind"]) for row in rows] == [
        (1, "helpfulness"), (1, "safety"), (2, "helpfulness"), (2, "safety"),
    ]  # fmt: skip
    assert rows[2]["accuracy"]["helpfulness"] == {
        "significantly_better": 0.92, "better": 0.82, "slightly_better": 0.72, "negligibly_better": 0.62,
        "all": pytest.approx(0.77),
    }  # fmt: skip
    assert rows[0]["left_out"] == {"test_prompts": 11, "same_tokens": 2, "same_tokens_in_test": 0}
    assert rows[3]["pairs"]["safety"]["all"] == 100 and rows[3]["standard_error"]["safety"]["better"] == 0.04


def test_annotation_sampling_and_ppo(whole):
    content = whole[0]
    assert [row["round"] for row in content["annotations"]] == [1, 2]
    assert content["annotations"][0]["ratings"]["significantly_better"] == pytest.approx(0.27)
    assert content["annotations"][1]["comparisons"] == 502
    assert content["annotations"][1]["test_comparisons_wanted"] == 150
    assert content["annotations"][1]["first_preferred"] == 0.473
    sampling = content["rejection_sampling"][1]
    assert (sampling["temperature"], sampling["bag"], sampling["bag_by_round"]) == (1.0, 200, {"2": 200})
    assert set(sampling["sweep"]) == {"0.8", "1.0", "1.2"} and len(sampling["best_of"]["max"]) == 8
    assert sampling["needed_standard_errors"] == 2.012
    assert sampling["temperature_rewards"]["0.8"]["minus_middle"] == pytest.approx(-0.04)
    assert (sampling["repeated_prompts_left_out"], sampling["bag_repeats_left_out"]) == (3, 5)
    (ppo,) = content["ppo"]
    assert (ppo["held_out_gain"], ppo["held_out_gain_standard_error"], ppo["selection_reward"]) == (0.25, 0.05, 0.78)
    assert ppo["curves"]["held_out_reward"] == [[0, 0.51], [10, 0.78]]
    assert ppo["curves"]["policy_clip_fraction"][0] == [4, 0.1]
    assert "policy_ratio" not in ppo["curves"]


def test_over_optimisation_is_named_with_both_changes_and_their_errors(whole):
    content, page, _ = whole
    text = " ".join(Page(page).text.split())
    assert text.count("Over-optimisation:") == 2, "of the last version and of PPO"
    assert (
        "the combined reward rose by 0.250 ± 0.020 (standard error), the general reward fell by 0.375 ± 0.062" in text
    )
    assert "a change of -0.438 ± 0.031 (standard error). Over-optimisation: at iteration 10 it was first below" in text
    (ppo,) = content["ppo"]
    assert ppo["over_optimisation"] == 10
    assert ppo["curves"]["held_out_general_reward"] == [[0, 0.3], [10, -0.1]]
    assert [(row["reward_changes"] or {}).get("over_optimised") for row in content["versions"]] == [
        None, False, False, True,
    ]  # fmt: skip


def test_losses_and_times(whole):
    content = whole[0]
    assert [row["stage"] for row in content["training"]] == ["pretrain", "sft"]
    assert content["training"][0]["tokens_per_step"] == 32 * 256 and content["training"][0]["held_out_loss"] == 1.25
    assert content["training"][1]["loss"][0] == [10, 4.0]
    assert [row["held_out"] for row in content["training"]] == [[[50, 2.0], [100, pytest.approx(7 / 6)]], []]
    assert "tokens_per_second" not in json.dumps(content)
    assert list(content["seconds"]) == [
        "tokenizer", "pretrain", "sft", "rlhf_v1_context_distillation",
        "rlhf_v1_annotation", "rlhf_v1_helpfulness_reward", "rlhf_v1_safety_reward",
        "rlhf_v1_rejection_sampling", "rlhf_v2_annotation", "rlhf_v2_helpfulness_reward", "rlhf_v2_safety_reward",
        "rlhf_v2_rejection_sampling", "rlhf_v2_ppo", "evaluation",
    ]  # fmt: skip
    assert content["seconds"]["rlhf_v2_annotation"] == 12.0


def test_what_the_run_cost(whole):
    content, page, _ = whole
    (row,) = content["ledger"]
    hours = 8 * sum(content["seconds"].values()) / 3600
    assert row["device_hours"] == pytest.approx(hours)
    assert row["kilograms"] == pytest.approx(hours * 0.7 * 1.1 * 0.385)
    text = " ".join(Page(page).text.split())
    assert f"8 × NVIDIA H100 80GB HBM3{hours:.2f} 700 W{hours * 0.77:.2f} kWh" in text
    assert "1.1 watts for each watt of its devices, and a kilowatt hour makes 0.385 kg" in text


def test_two_runs_differ_in_their_times_alone(whole, tmp_path):
    content, page, _ = whole
    again, page_again, _ = make_report(tmp_path, made_up_run(tmp_path, seconds=2.0))
    assert all(again.pop(name) != content[name] for name in ("seconds", "ledger"))
    assert again == {name: value for name, value in content.items() if name in again}
    charts = slice(page.index('<section id="versions">'), page.index('<section id="time">'))
    assert page[charts] == page_again[charts]


def test_page_has_every_section_and_needs_no_network(whole):
    page = Page(whole[1])
    assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)
    assert len(page.ids) == len(set(page.ids))
    assert not page.open and not page.outside
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "This run has no" not in page.text
    # 6 of the versions, 3 of instructions, 2 of preprompts, 3 + 4 of reward models, 2 of annotation, 3 of rejection
    # sampling, 5 of PPO, 2 of losses.
    assert page.tags.count("svg") == 30


def test_page_shows_the_numbers(whole):
    text = " ".join(Page(whole[1]).text.split())
    for words in (
        "SFT to V2 + PPO",
        "40% → 90%",
        "50% → 10%",
        "2.0% → 4.0%",
        "0.500 → 0.750",
        "92.0%",
        "round 2",
        "47.3%",
        "gain ± 0.098 (95%), best at iteration 10",
        "said 0.780 and 0.510",
        # Of round 2 the best of 8, the median and the gain with standard errors; a lead in the sweep, and its need.
        "0.680± 0.015 0.540± 0.025 0.140± 0.007",
        "20.848 0.500± 0.015 0.640± 0.020 -0.040± 0.010 0.020",
        "21.0 chosen48 0.540",
    ):
        assert words in text, words
    assert "prompts.world.arguments.round" in text  # in what the rounds' settings differ


def test_page_shows_what_the_scores_are_worth(whole):
    content, text = whole[0], " ".join(Page(whole[1]).text.split())
    (safety,) = [row for row in content["reward_models"] if (row["round"], row["kind"]) == (2, "safety")]
    assert safety["tests"]["safety"]["unsafe"]["configured"]["called_unsafe"] == 3
    assert content["reward_quality"]["safety"] is None
    for words in (
        # Of three pairs of different length the longer one is preferred in all but the last, by the model in all.
        "66.7%± 27.2%, of 3 100.0%± 0.0%, of 3",
        "if its score is below 0.15",
        "Round 2: nothing is said of <safety>.",
        "tested on answers of",
        "sft / sft public75.0%± 21.7%, of 4",
        # SciPy's correlations of made_up_run.quality.
        "Helpfulness reward and the judge: rank correlation -0.10 over all answers, 0.10 within categories;",
        "50% of pairs of answers to one prompt ranked right",
        "of rlhf v14-0.80",
        "to story4-0.80",
    ):
        assert words in text, words
    assert "Safety reward and the judge" not in text


def test_page_has_violations_by_category_and_attack(whole):
    """Of the newest version one of four violates, of the first three, each with its standard error and counts."""
    text = " ".join(Page(whole[1]).text.split())
    for words in (
        "V2 + PPO plain role play all illicit 100.0%1 of 1 0.0%0 of 1 50.0%± 35.4%, 1 of 2",
        "all 50.0%± 35.4%, 1 of 2 0.0%0 of 2 25.0%± 21.7%, 1 of 4",
        "version plain role play all sft 100.0%2 of 2 50.0%± 35.4%, 1 of 2 75.0%± 21.7%, 3 of 4",
    ):
        assert words in text, words


def test_page_compares_preprompts(whole):
    content, text = whole[0], " ".join(Page(whole[1]).text.split())
    (distilled,) = content["context_distillation"]
    for kind, kept in (("generic", "50.0%± 25.0%, 2 of 4"), ("template", "75.0%± 21.7%, 3 of 4")):
        gain = distilled["preprompts"]["kinds"][kind]["gain"]
        row = f"all {kind} 4 {distilled['preprompts']['kinds'][kind]['before']['mean']:.3f}median 0.500 "
        assert row in text
        after = text[text.index(row) :][:200]
        assert f"{gain['mean']:.3f}± {gain['standard_error']:.3f}, of 4" in after and kept in after
    assert "illicit generic 3" in text and "hateful template 1" in text
    paired = distilled["preprompts"]["template_minus_generic"]
    assert f"On the 4 prompts answered under both, templates score {paired['mean']:.3f} ±" in text


def test_page_says_what_content_and_style_did_and_on_which_prompts(whole):
    text = " ".join(Page(whole[1]).text.split())
    for words in (
        "the same 5 prompts, 1 of them with a question that training asks too (seen)",
        "From SFT to V2 + PPO, on unseen prompts: helpfulness rose from 40.0% to 90.0%, content fell from 60.0% to "
        "50.0%, wholly right stayed at 30.0%, style rose from 20.0% to 90.0%.",
        "on seen prompts: helpfulness rose from 50.0% to 100.0%, content stayed at 75.0%, wholly right stayed at "
        "40.0%, style rose from 25.0% to",
        "Training uses the words of the instructions in 12 of the 20 dialogues too.",
        "content, seen ↑",
        "fact2 20.0% → 70.0% 75.0% → 75.0% 50.0% → 50.0% 12.5% → 12.5% – 0.0% → 0.0% harm1 – – – – 50.0% → 25.0% –",
    ):
        assert words in text, words
    assert text.count("fact (seen)") == 1


def test_page_shows_known_and_new_instructions_and_the_attention_to_them(whole):
    content, text = whole[0], " ".join(Page(whole[1]).text.split())
    for words in (
        "versionturn 2turn 4turn 6 SFT50.0%of 12 10.0%of 11 0.0%of 10",
        "instruction, of those whose words training uses, by turn.",
        "versionturn 2turn 4 SFT25.0%of 8 0.0%of 7",
        "V2 + PPO75.0%of 8 60.0%of 7 Share of answers that keep an instruction whose words training does not use",
        "Attention to the system message",
        "By turn of the dialogue, the largest attention",
        "80%at turn 6",
    ):
        assert words in text, words
    assert "turn 20" not in text, "no dialogue reaches it"
    last = content["versions"][-1]
    assert last["new_instruction_kept"] == {"2": 0.75, "4": 0.6, "6": None, "20": None}
    assert last["new_instruction_answers"]["4"] == 7 and last["instruction_answers"]["6"] == 10
    assert last["instruction_attention"]["6"] == 0.4


def test_page_has_wins_over_the_version_before(whole):
    content, text = whole[0], " ".join(Page(whole[1]).text.split())
    assert [row["win_rate_vs_previous"] for row in content["versions"]] == [None, 0.6, 0.6, 0.6]
    assert content["versions"][1]["win_rate_vs_previous_standard_error"] == 0.03
    assert "wins over the version before ↑" in text and "60.0%± 3.0% s.e." in text


def test_text_of_models_is_escaped(whole):
    assert "<script>" not in whole[1]
    text = Page(whole[1]).text
    assert "<script>alert('sft 0')</script>" in text and "<script>alert('rlhf_v2 0')</script>" in text
    assert "Answer in <b>one</b> sentence." in text


def test_sample_answers_are_from_the_evaluation_that_has_the_version(tmp_path):
    """A model that is asked under another system message is evaluated apart (Koala)."""
    for evaluation, version, system in (
        ("first", "a", [{"role": "system", "content": "Be bad."}]),
        ("second", "b", []),
    ):
        (tmp_path / evaluation).mkdir()
        row = {"messages": [*system, {"role": "user", "content": "Hello?"}], "response": version, "category": "kind"}
        (tmp_path / evaluation / f"answers_{version}.jsonl").write_text(json.dumps(row) + "\n")
    folders, versions = [tmp_path / "first", tmp_path / "second"], [{"name": "a"}, {"name": "b"}]
    (entry,) = report._read_sample_answers(folders, versions)
    assert (entry["first"]["response"], entry["last"]["response"]) == ("a", "b")
    assert entry["messages"] == [{"role": "user", "content": "Hello?"}]
    assert report._read_sample_answers(folders, [{"name": "a"}, {"name": "absent"}]) == []
