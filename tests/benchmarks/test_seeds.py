"""The tables of benchmarks/seeds.py say what the reports hold."""

from benchmarks import seeds, seeds_claims
from llama2_jax.evaluation.measures import MEASURES

RATINGS = {"significantly_better": 0.9, "better": 0.8, "slightly_better": 0.7, "negligibly_better": 0.6, "all": 0.75}
NAMES = ("sft", "rlhf_v1", "rlhf_v2", "rlhf_v3", "rlhf_v4", "rlhf_v5_rejection_sampling", "rlhf_v5")


def report(shift=0.0):
    versions = [
        {
            "name": name,
            **{key: None for measure in MEASURES for key in measure.keys},
            "helpfulness": 0.4 + 0.05 * index + shift,
            "content": 0.6,
            "style": 0.3 + 0.1 * index,
            "seen_content": 0.65 + shift,
            "win_rate_vs_sft": None if name == "sft" else 0.6 + 0.04 * index,
            "violation_rate": 0.4 if name == "sft" else 0.05,
            "false_refusal_rate": 0.04,
            "instruction_kept": {"2": 0.9, "4": 0.5, "6": 0.1},
        }
        for index, name in enumerate(NAMES)
    ]
    models = [
        {
            "round": number,
            "kind": kind,
            "accuracy": {
                domain: {rating: value - 0.1 * (domain != kind) for rating, value in RATINGS.items()}
                for domain in ("helpfulness", "safety")
            },
            "pairs": {domain: dict.fromkeys(RATINGS, 100 * number) for domain in ("helpfulness", "safety")},
        }
        for number in (1, 2)
        for kind in ("helpfulness", "safety")
    ]
    return {"versions": versions, "reward_models": models}


def test_versions_are_medians_with_their_range():
    rows = seeds.versions_table({0: report(), 1: report(0.1), 2: report(0.2)}, seeds.HEADLINES)
    assert len(rows) == 2 + len(NAMES)
    assert "| rlhf_v1 | 0.550 (0.450 to 0.650) |" in rows[3]
    assert "| - |" in rows[2]  # SFT has no win rate over itself


def test_seen_prompts_have_a_table_and_the_change_is_said_in_words():
    reports = {0: report(), 1: report(0.1), 2: report(0.2)}
    rows = seeds.versions_table(reports, seeds.SEEN)
    assert "content, seen" in rows[0] and "0.750 (0.650 to 0.850)" in rows[2]
    assert seeds.in_words(reports)[1:] == [
        "From sft to rlhf_v5, on unseen prompts: helpfulness rose from 50.0% to 80.0%, content stayed at 60.0%, style "
        "rose from 30.0% to 90.0%.",
        "From sft to rlhf_v5, on seen prompts: content stayed at 75.0%.",
    ]


def test_accuracy_is_weighted_by_pairs():
    uneven = report()
    uneven["reward_models"][0]["accuracy"]["helpfulness"]["all"] = 0.45  # 100 pairs; round 2 has 200 at 0.75
    assert abs(seeds_claims.mean_accuracy(uneven, "helpfulness", "helpfulness", "all") - 0.65) < 1e-12
    assert "helpfulness, on safety" in seeds.accuracy_table({0: report()})[3]


def test_known_and_new_instructions_have_a_table_each_with_the_turns_of_all_reports():
    """One of the reports is of earlier code, with other turns and no new instructions."""
    new = report()
    for row in new["versions"]:
        row["instruction_kept"] = {"2": 0.5, "20": 0.25, "40": None}
        row["new_instruction_kept"] = {"2": 0.75, "20": None}
    reports = {0: report(), 1: new}
    known_table, new_table = (seeds.instructions_table(reports, *table) for table in seeds.INSTRUCTIONS)
    assert known_table[0] == "| instruction kept | turn 2 | turn 4 | turn 6 | turn 20 |"
    assert known_table[2].startswith("| sft | 0.700 (0.500 to 0.900) | 0.500 (0.500 to 0.500) |")
    assert known_table[2].endswith("| 0.250 (0.250 to 0.250) |") and known_table[-1] == ""
    assert new_table[0] == "| new instruction kept | turn 2 |"
    assert new_table[8] == "| rlhf_v5 | 0.750 (0.750 to 0.750) |"
    assert seeds.instructions_table({0: report()}, *seeds.INSTRUCTIONS[1]) == []


def test_what_a_report_of_earlier_code_lacks_is_a_dash():
    old = report()
    for row in old["versions"]:
        del row["content"], row["win_rate_vs_previous"]
    assert "| - |" in seeds.versions_table({0: old}, seeds.HEADLINES)[2]
    assert "content" not in seeds.in_words({0: old})[1]


def holds(*reports):
    table = seeds_claims.claims_table(dict(enumerate(reports)))
    return {row.split("|")[1].strip(): tuple(cell.strip() for cell in row.split("|")[2:4]) for row in table[2:]}


def test_claims_that_hold_and_one_that_does_not():
    good, bad = report(), report()
    bad["versions"][-1]["helpfulness"] = 0.1
    rows = holds(good, bad)
    assert rows["win rate of V5 over SFT, at least 0.75"][1] == "2 of 2"
    assert rows["least rise of true helpfulness, SFT to V1 to V3 to V5"][1] == "1 of 2"
    assert rows["true helpfulness that PPO adds"][1] == "1 of 2"
    assert rows["least lead of a reward model on its own domain"][1] == "2 of 2"
    assert rows["least fall of accuracy from one rating to the next weaker"][1] == "2 of 2"
    assert rows["SFT's false refusals plus 0.05 less V5's"] == ("0.050 (0.050 to 0.050)", "2 of 2")


def test_claims_on_content_instructions_and_ppo():
    """The margin of each, by hand."""
    made = report()
    by_name = {row["name"]: row for row in made["versions"]}
    by_name["sft"].update(content=0.5, right=0.25, style=0.3)
    by_name["rlhf_v3"]["instruction_kept"] = {"6": 0.125}
    by_name["rlhf_v5_rejection_sampling"].update(violation_rate=0.0625, false_refusal_rate=0.0)
    by_name["rlhf_v5"].update(
        content=0.625, right=0.125, style=0.9, instruction_kept={"6": 0.9, "20": 0.75}, win_rate_vs_previous=0.6,
        violation_rate=0.03125, false_refusal_rate=0.125,
    )  # fmt: skip
    margins = {title: (cell.split(" ")[0], count) for title, (cell, count) in holds(made).items()}
    for title, margin in {
        "content of V5 less SFT's": "0.125",
        "wholly right answers of V5 less SFT's": "-0.125",
        "style of V5 less SFT's": "0.600",
        "instructions kept by V5 at turn 6, at least 0.8": "0.100",
        "instructions kept by V5 at turn 20, at least 0.8": "-0.050",
        "instructions kept without Ghost Attention (V3) at turn 6, at most 0.2": "0.075",
        "win rate of V5 over V5 without PPO, at least 0.55": "0.050",
        "violations without PPO less V5's": "0.031",
        "false refusals without PPO less V5's": "-0.125",
    }.items():
        assert margins[title] == (margin, f"{int(float(margin) >= 0)} of 1"), title


def test_a_claim_is_counted_over_the_reports_that_have_its_numbers():
    with_turn, shorter = report(), report()
    for row in with_turn["versions"]:
        row["instruction_kept"] = {"6": 0.9, "20": 0.85}
    turn_20 = "instructions kept by V5 at turn 20, at least 0.8"
    assert holds(with_turn, report(), report())[turn_20][1] == "1 of 1"
    assert holds(report())[turn_20] == ("-", "-")
    win_rate = "win rate of V5 over V5 without PPO, at least 0.55"
    assert holds(report())[win_rate] == ("-", "-")
    # Without the version before PPO, the win rate over the version before is over another.
    shorter["versions"][-1]["win_rate_vs_previous"] = 0.9
    assert holds(shorter)[win_rate][1] == "1 of 1"
    del shorter["versions"][-2]
    assert holds(shorter)[win_rate] == ("-", "-")
    assert holds(shorter)["true helpfulness that PPO adds"] == ("-", "-")
