"""The tables of benchmarks/seeds.py say what the reports hold."""

from benchmarks import seeds
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
    assert abs(seeds.mean_accuracy(uneven, "helpfulness", "helpfulness", "all") - 0.65) < 1e-12
    assert "helpfulness, on safety" in seeds.accuracy_table({0: report()})[3]


def test_claims_that_hold_and_one_that_does_not():
    good, bad = report(), report()
    bad["versions"][-1]["helpfulness"] = 0.1
    rows = {row.split("|")[1].strip(): row.split("|")[3].strip() for row in seeds.claims_table({0: good, 1: bad})[2:]}
    assert rows["win rate of V5 over SFT, at least 0.75"] == "2 of 2"
    assert rows["least rise of true helpfulness, SFT to V1 to V3 to V5"] == "1 of 2"
    assert rows["true helpfulness that PPO adds"] == "1 of 2"
    assert rows["least lead of a reward model on its own domain"] == "2 of 2"
    assert rows["least fall of accuracy from one rating to the next weaker"] == "2 of 2"
