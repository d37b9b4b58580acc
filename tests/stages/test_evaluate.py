"""All versions answer the same prompts; a judge and the reward models look at them."""

import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.evaluation.measures import MEASURES, Measure, to_json
from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline import general_reward, sampling
from llama2_jax.pipeline.reward_models import Scores
from llama2_jax.pipeline.stage_files import read_json, read_jsonl
from llama2_jax.stages import evaluate
from tests.smallest import Letters
from tests.three_versions import ANSWERS, evaluation, judge, prompts


@pytest.fixture
def stage(tmp_path, monkeypatch):
    return evaluation(tmp_path, monkeypatch)


def test_versions_are_measured_in_order(stage):
    versions, folder = stage()
    assert [version["name"] for version in versions] == ["one", "two", "three"]
    assert [version["helpfulness"] for version in versions] == pytest.approx([0.2, 0.4, 0.2])
    assert [version["violation_rate"] for version in versions] == [0, 1, 0]
    assert [version["answer_tokens"] for version in versions] == [4, 6, 4]  # a space before them and EOS behind them
    # BOS and "[INST] question 0 [/INST]".
    assert [version["reward_helpfulness"] for version in versions] == [30, 32, 30]
    written = read_json(folder / "evaluation.json")
    assert written.pop("reward_quality")
    assert written == {
        "versions": versions, "prompts": 6, "seen_prompts": 0, "dialogues": 3, "seen_dialogues": 0,
        "measures": to_json(MEASURES),
    }  # fmt: skip


def test_rewards_are_compared_with_the_verdicts_on_the_same_answers(stage):
    """The longer answer has the higher helpfulness and reward, the lower safety and safety score."""
    _, folder = stage()
    found = read_json(folder / "evaluation.json")["reward_quality"]
    for kind in ("helpfulness", "safety"):
        assert found[kind]["answers"] == 9, "three of six prompts, three versions"
        assert found[kind]["same_prompt"] == {"pairs": 6, "right": 1.0}
        # Each version answers all prompts alike.
        assert found[kind]["versions"]["two"] == {"answers": 3, "rank_correlation": None}


def test_without_verdicts_rewards_are_compared_with_nothing(stage):
    _, folder = stage(judge={"function": f"{__name__}.undecided_judge"})
    found = read_json(folder / "evaluation.json")["reward_quality"]
    assert found["safety"] is None and found["helpfulness"]["answers"] == 6


def test_of_several_answers_to_a_prompt_the_one_with_the_best_reward_counts(stage, monkeypatch):
    """Three answers to each prompt: short ones, longer ones, and the longest, which do not end in time."""
    asked = []

    def generate(model, params, prompts, sampling, key, eos_id, samples_per_prompt=1, **_):
        asked.append((params, samples_per_prompt))
        answers = [(" a", True), (" abc", True), (" abcdef", False)][:samples_per_prompt]
        ids = [[*map(ord, text), *([eos_id] if finished else [])] for text, finished in answers]
        return [
            Sample(index, np.asarray(tokens, np.int32), finished, np.zeros(len(tokens)))
            for index in range(len(prompts))
            for tokens, (_, finished) in zip(ids, answers, strict=True)
        ]

    monkeypatch.setattr(sampling, "generate", generate)
    versions, folder = stage(answers_per_prompt={"two": 3})
    assert asked == [("first", 1), ("second", 3), ("third", 1)]
    answers = {name: read_jsonl(folder / f"answers_{name}.jsonl") for name in ("one", "two", "three")}
    assert {name: {row["response"] for row in rows} for name, rows in answers.items()} == {
        "one": {"a"}, "two": {"abc"}, "three": {"a"},
    }  # fmt: skip
    assert [row["messages"] for row in answers["two"]] == [row["messages"] for row in answers["one"]]
    assert all(row["rewards"]["helpfulness"] == len(row["tokens"]) and row["finished"] for row in answers["two"])
    assert versions[1]["reward_helpfulness"] == versions[0]["reward_helpfulness"] + 2


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"fourth": 2}, "answers_per_prompt.fourth: choose one of the versions, one, two"),
        ({"two": 0}, "answers_per_prompt.two=0: wanted at least 1"),
    ],
)
def test_how_often_a_version_is_asked_is_checked(answers, message):
    config = ConfigDict({"versions": ("one", "two"), "baseline": "one", "answers_per_prompt": answers})
    with pytest.raises(ValueError, match=message):
        evaluate.check(config, {}, len)


def test_win_rates_are_over_the_baseline(stage):
    one, two, three = stage()[0]
    assert one["win_rate_vs_sft"] is None and three["win_rate_vs_sft"] is None  # nothing but ties
    assert two["win_rate_vs_sft"] == 0.5
    assert two["helpfulness_win_rate_vs_sft"] == 1 and two["safety_win_rate_vs_sft"] == 0
    assert two["win_rate_standard_error"] == pytest.approx(np.sqrt(0.25 / 6))


def test_win_rates_are_over_the_version_before_too(stage):
    """The second version's longer answers win the harmless prompts and lose the others, the third's the reverse."""
    versions = stage()[0]
    assert [version["win_rate_vs_previous"] for version in versions] == [None, 0.5, 0.5]
    assert [version["judged"]["win_rate_vs_previous"] for version in versions] == [0, 6, 6]
    error = pytest.approx(np.sqrt(0.25 / 6))
    assert [version["win_rate_vs_previous_standard_error"] for version in versions] == [None, error, error]


def judge_of_length(rows, *, seed):
    """Longer is better on safety too."""
    verdicts = judge(rows, seed=seed)
    return [{**verdict, "safety": verdict["helpfulness"]} for verdict in verdicts]


def test_the_version_before_is_not_the_baseline(stage):
    versions = stage(judge={"function": f"{__name__}.judge_of_length"})[0]
    assert [version["win_rate_vs_previous"] for version in versions] == [None, 1.0, 0.0]
    assert [version["win_rate_vs_sft"] for version in versions] == [None, 1.0, None], "the third is as the first"


@pytest.fixture
def general(monkeypatch):
    """A general reward model that prefers long answers to the prompts with an even number, which are safety matters.

    To the others it prefers short ones, a little less so to question 3.
    """

    def score(ids):
        number = int(chr(ids[17]))
        return -len(ids) - 0.5 * (number == 3) if number % 2 else 10.0 * len(ids)

    def load_general_reward(inputs, runtime):
        return lambda sequences: np.asarray([score(ids) for ids in sequences], np.float32)

    monkeypatch.setattr(evaluate, "load_general_reward", load_general_reward)


def test_a_version_whose_reward_rises_while_the_general_one_falls_is_named(stage, general, monkeypatch):
    """The reward models pay for length: the second version's answers are longer, those of the third are not.

    Both rewards are compared on the three harmless prompts alone.
    """
    warnings = []
    monkeypatch.setattr(general_reward.logging, "warning", lambda message, *rest: warnings.append(message % rest))
    versions, folder = stage()
    one, two, three = versions
    means = [version["reward_general"] for version in versions]
    assert means == pytest.approx([-30 - 0.5 / 3, -32 - 0.5 / 3, -30 - 0.5 / 3])
    # -30, -30.5 and -30.
    assert one["reward_general_standard_error"] == pytest.approx(0.5 / 3)
    assert one["reward_changes"] is None
    changes = two["reward_changes"]
    assert (changes["prompts"], changes["general"], changes["general_standard_error"]) == (3, -2.0, 0.0)
    assert changes["over_optimised"] and changes["optimised"] > 0
    assert three["reward_changes"]["general"] == 2.0 and not three["reward_changes"]["over_optimised"]
    (warning,) = warnings
    assert warning.startswith("two is over-optimised: since one, optimised reward +")
    general_rewards = [row["rewards"]["general"] for row in read_jsonl(folder / "answers_two.jsonl")]
    assert general_rewards == [320, -32, 320, -32.5, 320, -32]


def test_without_a_general_reward_model_there_is_no_such_column(stage):
    for version in stage()[0]:
        names = ("reward_general", "reward_general_standard_error", "reward_changes")
        assert [version[name] for name in names] == [None] * 3


def prompts_of_which_training_asks_some(*, seed):
    """The seen ones are longer, which the reward models see."""
    seen = [{**record, "seen": True, "messages": [{"role": "user", "content": "?" * 20}]} for record in prompts(seed=0)]
    return [*prompts(seed=seed), *seen[:3]]


def judge_who_knows_the_seen(rows, *, seed):
    """On seen prompts the shorter answer is better; only for them content is known."""
    verdicts = judge(rows, seed=seed)
    return [
        {**verdict, "helpfulness": 1 - verdict["helpfulness"], "safety": 1 - verdict["safety"], "content": 0.5}
        if row["messages"][-1]["content"].startswith("?")
        else verdict
        for row, verdict in zip(rows, verdicts, strict=True)
    ]


def test_seen_prompts_are_measured_apart(stage):
    source = {"made": {"function": f"{__name__}.prompts_of_which_training_asks_some", "format": "prompts"}}
    versions, folder = stage(prompts=source, judge={"function": f"{__name__}.judge_who_knows_the_seen"})
    # What is seen changes no measure of what is unseen.
    assert [version["helpfulness"] for version in versions] == pytest.approx([0.2, 0.4, 0.2])
    assert [version["reward_helpfulness"] for version in versions] == [30, 32, 30]
    assert [version["answer_tokens"] for version in versions] == [4, 6, 4]
    assert versions[1]["win_rate_vs_sft"] == 0.5 and versions[1]["helpfulness_win_rate_vs_sft"] == 1
    assert versions[1]["win_rate_standard_error"] == pytest.approx(np.sqrt(0.25 / 6))
    assert [version["seen_helpfulness"] for version in versions] == pytest.approx([0.8, 0.6, 0.8])
    assert [version["seen_violation_rate"] for version in versions] == [0, 1, 0]
    assert [version["seen_content"] for version in versions] == [0.5] * 3
    assert versions[0]["content"] is None
    # Of the two kinds' three seen prompts "two" loses the harmless one and wins the two of safety.
    assert versions[1]["seen_win_rate_vs_sft"] == pytest.approx(2 / 3)
    assert read_json(folder / "evaluation.json")["seen_prompts"] == 3
    assert [row["seen"] for row in read_jsonl(folder / "answers_two.jsonl")] == [False] * 6 + [True] * 3


def test_every_answer_is_written_with_its_verdict(stage):
    _, folder = stage()
    for name, answer in zip(("one", "two", "three"), ANSWERS.values(), strict=True):
        rows = read_jsonl(folder / f"answers_{name}.jsonl")
        assert [row["messages"] for row in rows] == [prompt["messages"] for prompt in prompts(seed=0)]
        assert {row["response"] for row in rows} == {answer.strip()}
        assert Letters().decode(rows[0]["tokens"]) == f"[INST] question 0 [/INST]{answer}"
        assert rows[0]["verdict"]["violation"] == (name == "two")


def undecided_judge(rows, *, seed):
    """Decides nothing of the answers "abcd", and of the others nothing but how helpful those to odd questions are."""
    del seed
    return [
        None if row["response"] == "abcd" else {"helpfulness": 0.5 if place % 2 else None}
        for place, row in enumerate(rows)
    ]


def test_what_the_judge_cannot_decide_does_not_end_the_evaluation(stage):
    """The even questions are safety matters: with no value of safety they are in no win rate either."""
    versions, folder = stage(judge={"function": f"{__name__}.undecided_judge"})
    one, two, three = versions
    assert (one["helpfulness"], two["helpfulness"], three["safety"]) == (0.5, None, None)
    assert (one["judged"]["helpfulness"], two["judged"]["helpfulness"], one["judged"]["safety"]) == (3, 0, 0)
    assert [version["judged"]["win_rate_vs_sft"] for version in versions] == [3, 0, 3]
    assert [version["win_rate_vs_sft"] for version in versions] == [None] * 3, "nothing but ties"
    assert "helpfulness: none of 3 verdicts has a value of helpfulness" in two["notes"]
    assert not any(note.startswith("helpfulness") for note in one["notes"])
    assert one["instruction_kept"] == {"2": None, "4": None, "6": None}
    assert read_jsonl(folder / "answers_two.jsonl")[0]["verdict"] is None


def test_every_prompt_is_judged_by_a_judge_that_decides(stage):
    for place, version in enumerate(stage()[0]):
        assert version["notes"] == []
        # No prompt is borderline or seen, and this judge knows nothing of content and style.
        assert {measure: count for measure, count in version["judged"].items() if count} == {
            "helpfulness": 3, "safety": 3, "violation_rate": 3, "false_refusal_rate": 3,
            "win_rate_vs_sft": 6, "helpfulness_win_rate_vs_sft": 3, "safety_win_rate_vs_sft": 3,
            **({"win_rate_vs_previous": 6} if place else {}),
        }  # fmt: skip


def short_judge(rows, *, seed):
    return judge(rows[1:], seed=seed)


def test_a_judge_that_skips_an_answer_is_named(stage):
    with pytest.raises(ValueError, match=r"the_stage: the judge .*short_judge returned 5 verdicts on 6 answers"):
        stage(judge={"function": f"{__name__}.short_judge"})


@pytest.mark.parametrize(("threshold", "read"), [(0.15, "helpfulness"), (0.5, "safety")])
def test_the_reward_goes_by_the_configured_threshold(stage, monkeypatch, threshold, read):
    """sigmoid(-1) is 0.27: the safety score of a harmless prompt counts only if the threshold is above it."""
    rewards = []

    def load_reward_models(inputs, runtime, reward):
        rewards.append(reward)
        return types.SimpleNamespace(score=lambda rows: Scores(*(np.zeros(len(rows), np.float32) for _ in range(3))))

    monkeypatch.setattr(evaluate, "load_reward_models", load_reward_models)
    stage(safety_threshold=threshold)
    (logit,) = rewards[0]([{"safety": False}], np.asarray([2.0]), np.asarray([-1.0]))
    assert logit == pytest.approx({"helpfulness": 2.0, "safety": -1.0}[read])


OWN_MEASURES = (
    *MEASURES,
    Measure("harmless_safety", "safety of harmless answers", verdict="safety", prompts="harmless"),
)


def test_measures_of_ones_own_are_named_in_the_config(stage):
    versions, folder = stage(measures=f"{__name__}.OWN_MEASURES")
    assert [version["harmless_safety"] for version in versions] == pytest.approx([0.8, 0.6, 0.8])
    assert read_json(folder / "evaluation.json")["measures"] == to_json(OWN_MEASURES)
