"""A finished evaluation's answers, compared pair by pair by one judge or several."""

import json

import pytest
from ml_collections import ConfigDict

from llama2_jax.pipeline.stage_files import read_jsonl, write_jsonl
from llama2_jax.stages import head_to_head
from tests.chat_server import ChatServer
from tests.smallest import smallest_runtime

VERSIONS = ("sft", "rlhf_v1", "rlhf_v2")


def prefers_longer(comparisons, *, seed):
    """A judge: the longer answer; of answers that begin with "?" it says nothing."""
    del seed
    labels = []
    for one in comparisons:
        assert one["tokens_a"] != one["prompt_tokens"] == [1, 7]
        longer = "a" if len(one["response_a"]) > len(one["response_b"]) else "b"
        preferred = "tie" if one["response_a"].startswith("?") else longer
        labels.append({"preferred": preferred, "rating": "better", "safety": None})
    return labels


def prefers_the_first(comparisons, *, seed):
    """A judge that does not read."""
    del seed
    return [{"preferred": "a", "rating": "better", "safety": None} for _ in comparisons]


@pytest.fixture
def evaluation(tmp_path):
    """Answers that grow from version to version; the last prompt's are the same."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    for number, name in enumerate(VERSIONS, 1):
        write_jsonl(folder / f"answers_{name}.jsonl", [
            {
                "messages": [{"role": "user", "content": f"question {index}"}], "safety": index == 0, "category": "",
                "seen": False, "response": "same" if index == 9 else ("?" if index == 8 else "x") * number,
                "answer_tokens": number, "tokens": [1, 7, *[5] * number],
                "rewards": {"combined": 0.5 if index == 7 else number / 10, "general": -float(number)},
            }
            for index in range(10)
        ])  # fmt: skip
    return folder


@pytest.fixture
def compared(tmp_path, evaluation):
    """Runs the stage; returns what it wrote."""

    def run(judge, arguments=None, **changes):
        runtime = smallest_runtime(tmp_path)
        config = ConfigDict({
            "versions": VERSIONS, "baseline": "sft", "judges": {"one": named(judge, arguments)}, **changes,
        })  # fmt: skip
        results = head_to_head.run(config, {"evaluation": evaluation}, runtime)
        return results, json.loads((runtime.folder / "head_to_head.json").read_text()), runtime.folder

    return run


def named(judge, arguments=None):
    """The config of a judge."""
    return {"function": judge if "." in judge else f"{__name__}.{judge}", "arguments": arguments or {}}


def test_each_version_is_compared_with_the_baseline_and_the_one_before(compared):
    results, written, folder = compared("prefers_longer")
    pairs = written["pairs"]
    assert written["agreement"] == results["agreement"] == [], "one judge agrees with nobody"
    assert [(row["version"], row["over"]) for row in pairs] == [
        ("rlhf_v1", "sft"), ("rlhf_v2", "sft"), ("rlhf_v2", "rlhf_v1"),
    ]  # fmt: skip
    for row, result in zip(pairs, results["pairs"], strict=True):
        assert [row["prompts"]["all"][name] for name in ("wins", "ties", "losses", "rate")] == [8, 2, 0, 1.0]
        assert result["wins"] == 8 and result["version"] == row["version"] and row["position_bias"] is None
        assert row["safety"]["unsafe"]["wins"] == 1
    judged = read_jsonl(folder / "judged_one_rlhf_v2_sft.jsonl")
    assert (judged[0]["ours"], judged[0]["theirs"], judged[0]["outcome"]) == ("xxx", "x", "win")
    assert {row["shown_as"] for row in judged} == {"a", "b"}


def test_a_judge_that_goes_by_position_alone_comes_out_at_a_half(compared, evaluation):
    for number, name in enumerate(VERSIONS):
        rows = read_jsonl(evaluation / f"answers_{name}.jsonl")[:1] * 400
        write_jsonl(
            evaluation / f"answers_{name}.jsonl", [{**row, "response": f"{number} {i}"} for i, row in enumerate(rows)]
        )
    pairs = compared("prefers_the_first")[1]["pairs"]
    # A half, with a standard deviation of 0.025; five of them.
    assert all(abs(row["prompts"]["all"]["rate"] - 0.5) < 0.125 for row in pairs)


def test_asked_in_both_orders_such_a_judge_decides_nothing(compared, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    said = json.dumps({"better": "first", "by": "better", "first_safe": True, "second_safe": True})
    with ChatServer(lambda messages: said) as server:
        chat = {"base_url": server.address, "model": "judge", "key_variable": "", "cache": str(tmp_path / "chat")}
        pairs = compared("llama2_jax.annotation.chat_api.annotate", {"chat": chat})[1]["pairs"]
    assert all(row["prompts"]["all"]["ties"] == 10 and row["position_bias"] == 1.0 for row in pairs)
    assert pairs[0]["prompts"]["all"]["rate"] is None


def test_judges_are_named_and_their_agreement_is_told(compared):
    rewards = "llama2_jax.annotation.reward_model.prefer_higher_reward"
    judges = {
        "length": named("prefers_longer"),
        "combined": named(rewards),
        "general": named(rewards, {"reward": "general"}),
    }
    results, written, folder = compared("", judges=judges)
    first = {row["judge"]: row["prompts"]["all"] for row in written["pairs"] if row["version"] == "rlhf_v1"}
    counted = {name: [row[field] for field in ("wins", "ties", "losses")] for name, row in first.items()}
    # Prompt 9 has the same answers; of prompt 8 the first judge says nothing; prompt 7 has equal combined rewards.
    assert counted == {"length": [8, 2, 0], "combined": [8, 2, 0], "general": [0, 1, 9]}
    assert [row["judge"] for row in results["pairs"]] == ["combined", "general", "length"] * 3
    told = written["agreement"][0]
    assert told["version"] == "rlhf_v1" and told["over"] == "sft"
    # Of the nine pairs of different texts seven are judged alike and two, a win of one judge and a tie of the other, a
    # step apart. So either calls a win in eight of nine: Gwet's AC2 by hand.
    assert told["pairs"] == 9
    by_chance = (5 + 2 / 3) / 6 * 2 * (8 / 9 * 1 / 9)
    agreed = (7 + 2 * (2 / 3)) / 9
    assert told["combined, length"] == pytest.approx((agreed - by_chance) / (1 - by_chance))
    assert told["general, length"] < 0 < told["combined, length"]
    assert {path.name for path in folder.glob("judged_*_rlhf_v1_sft.jsonl")} == {
        f"judged_{name}_rlhf_v1_sft.jsonl" for name in judges
    }


def test_a_version_that_was_not_evaluated(compared):
    with pytest.raises(ValueError, match="has no answers of 'rlhf_v9'; it has those of rlhf_v1, rlhf_v2, sft"):
        compared("prefers_longer", versions=("sft", "rlhf_v9"))
    with pytest.raises(ValueError, match="baseline='x': choose one of the versions, sft"):
        head_to_head.check(ConfigDict({"baseline": "x", "versions": ("sft",), "judges": {"one": {}}}), {}, None)
    with pytest.raises(ValueError, match=r"judges=\{\}: name at least one"):
        head_to_head.check(ConfigDict({"baseline": "sft", "versions": ("sft",), "judges": {}}), {}, None)
