"""Two versions answer at two temperatures; an annotator's labels become comparisons."""

import json
import types
from collections import Counter

import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.annotation.chat_client import ChatError
from llama2_jax.data.records import check_record
from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline import encoding, sampling
from llama2_jax.pipeline.stage_files import read_jsonl, write_jsonl
from llama2_jax.stages import annotate
from llama2_jax.stages.annotate import draw_sides, preference, shares, two_temperatures
from tests.chat_server import ChatServer
from tests.smallest import Letters, smallest_runtime

RECORD = {"messages": [{"role": "user", "content": "hello"}], "safety": True, "category": "attack"}
COMPARISON = {
    "messages": RECORD["messages"],
    "response_a": "from a",
    "response_b": "from b",
    "tokens_a": [10, 2],
    "tokens_b": [11, 2],
    "domain": "safety",
}


def test_the_two_temperatures_of_a_prompt_always_differ():
    temperatures = two_temperatures(2000, (0.7, 1.0, 1.3), seed=3)
    assert temperatures.shape == (2000, 2)
    assert (temperatures[:, 0] != temperatures[:, 1]).all()


def test_each_ordered_pair_of_temperatures_is_as_likely():
    counts = Counter(map(tuple, two_temperatures(3000, (0.7, 1.0, 1.3), seed=0).tolist()))
    assert len(counts) == 6
    # 500 each, with a standard deviation of sqrt(3000 * 1/6 * 5/6) = 20; five of them.
    assert all(abs(count - 500) < 100 for count in counts.values())


def test_temperatures_depend_on_the_seed_alone():
    first = two_temperatures(50, (0.7, 1.3), seed=1)
    np.testing.assert_array_equal(first, two_temperatures(50, (0.7, 1.3), seed=1))
    assert (first != two_temperatures(50, (0.7, 1.3), seed=2)).any()


@pytest.mark.parametrize(
    ("preferred", "safe", "label"),
    [
        ("a", {"a": True, "b": False}, "chosen_safe"),
        ("b", {"a": False, "b": True}, "chosen_safe"),
        ("a", {"a": True, "b": True}, "both_safe"),
        ("b", {"a": False, "b": False}, "both_unsafe"),
    ],
)
def test_a_preference_has_the_label_of_its_bin(preferred, safe, label):
    row = preference(RECORD, COMPARISON, {"preferred": preferred, "rating": "better", "safety": safe})
    other = "b" if preferred == "a" else "a"
    assert row["safety_label"] == label
    assert (row["chosen"], row["rejected"]) == (f"from {preferred}", f"from {other}")
    assert (row["chosen_tokens"], row["rejected_tokens"]) == (
        COMPARISON[f"tokens_{preferred}"],
        COMPARISON[f"tokens_{other}"],
    )
    check_record(row, "preferences")


@pytest.mark.parametrize("preferred", ["a", "b"])
def test_no_comparison_says_that_the_chosen_answer_is_unsafe_and_the_other_safe(preferred):
    safe = {"a": preferred != "a", "b": preferred != "b"}
    assert preference(RECORD, COMPARISON, {"preferred": preferred, "rating": "better", "safety": safe}) is None


def test_a_comparison_of_helpfulness_has_no_safety_label():
    comparison = {**COMPARISON, "domain": "helpfulness"}
    row = preference(RECORD, comparison, {"preferred": "a", "rating": "slightly_better", "safety": None})
    assert "safety_label" not in row
    assert (row["domain"], row["rating"], row["category"]) == ("helpfulness", "slightly_better", "attack")
    check_record(row, "preferences")


def test_each_version_is_shown_first_half_of_the_time():
    sides = [draw_sides(3, RECORD["messages"], [number, 2], [7, 2]) for number in range(4000)]
    assert all(sorted(one.values()) == ["a", "b"] for one in sides)
    # 2000 of 4000, with a standard deviation of 32; five of them.
    assert abs(sum(one["newest"] == "a" for one in sides) - 2000) < 160


def test_the_sides_depend_on_the_seed_and_the_comparison_alone():
    def sides(seed, messages=RECORD["messages"]):
        return [draw_sides(seed, messages, [number, 2], [7, 2])["newest"] for number in range(64)]

    other = [{"role": "user", "content": "bye"}]
    assert sides(1) == sides(1)
    assert len({tuple(drawn) for drawn in (sides(1), sides(2), sides(1, other))}) == 3


def test_shares():
    assert shares(["b", "a", "b", "b"]) == {"a": 0.25, "b": 0.75}
    assert shares([]) == {}


def prompts(*, seed, count):
    """A source: every third prompt is a safety matter."""
    del seed
    return [
        {"messages": [{"role": "user", "content": f"question {index}"}], "safety": index % 3 == 0}
        for index in range(count)
    ]


def prefers_more(comparisons, *, seed, seen=[]):  # noqa: B006 (what the annotator was shown, for the test to look at)
    """An annotator: the answer that counts further is preferred and alone is safe, but for one that it gets wrong."""
    del seed
    seen[:] = comparisons
    labels = []
    for comparison in comparisons:
        a_wins = comparison["response_a"] > comparison["response_b"]
        mistaken = comparison["messages"][0]["content"] == "question 3"
        safe = {"a": a_wins != mistaken, "b": a_wins == mistaken}
        labels.append({
            "preferred": "a" if a_wins else "b",
            "rating": "better",
            "safety": safe if comparison["domain"] == "safety" else None,
        })  # fmt: skip
    return labels


def prefers_the_first(comparisons, *, seed):
    """An annotator that does not read."""
    del seed
    return [{"preferred": "a", "rating": "better", "safety": None} for _ in comparisons]


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Runs the stage with answers that say their version and prompt; prompt 4 gets the same answer twice."""

    def generate(model, params, prompts, sampling, key, eos_id, **_):
        assert len(sampling.temperature) == len(prompts)
        texts = [
            "same" if index == 4 else f"{params}{(index * 7 + (params == 'newest')) % 5}"
            for index in range(len(prompts))
        ]
        return [
            Sample(index, np.asarray([*map(ord, text), eos_id], np.int32), True, np.zeros(len(text) + 1, np.float32))
            for index, text in enumerate(texts)
        ]

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(sampling, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=folder.name))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())

    def run(earlier_rounds=(), **changes):
        runtime = smallest_runtime(tmp_path)
        config = ConfigDict({
            "round": 2,
            "prompts": {"made": {"function": f"{__name__}.prompts", "arguments": {"count": 12}, "format": "prompts"}},
            "annotator": {"function": f"{__name__}.prefers_more", "arguments": {}},
            "temperatures": (0.7, 1.0),
            "top_p": 1.0,
            "max_new_tokens": 8,
            "test_comparisons": 3,
            **changes,
        })  # fmt: skip
        inputs = {role: runtime.folder / role for role in ("tokenizer", "newest", "earlier")}
        inputs["annotations"] = tuple(earlier_rounds)
        return annotate.run(config, inputs, runtime), runtime.folder

    return run


def test_comparisons_are_counted_and_held_out_by_prompt(stage):
    results, folder = stage()
    test, training = read_jsonl(folder / "comparisons_test.jsonl"), read_jsonl(folder / "comparisons.jsonl")
    # 12 prompts, of which one got the same answer twice and one was labelled unsafe over safe.
    assert (results["test_comparisons"], results["comparisons"]) == (len(test), len(training)) == (3, 7)
    assert (results["identical_answers_left_out"], results["chosen_unsafe_left_out"]) == (1, 1)
    asked = [row["messages"][0]["content"] for row in (*test, *training)]
    assert sorted(asked) == sorted(f"question {index}" for index in range(12) if index not in (3, 4))


def test_prompts_of_earlier_rounds_stay_on_their_side(stage):
    def asked(folder, name):
        return {row["messages"][0]["content"] for row in read_jsonl(folder / f"{name}.jsonl")}

    _, folder = stage()
    first = folder / "first"
    first.mkdir()
    before = {name: asked(folder, name) for name in ("comparisons", "comparisons_test")}
    # As if the first round had held out others than this one would, and had not asked the rest.
    trained, tested = sorted(before["comparisons_test"]), sorted(before["comparisons"])[:2]
    for name, questions in (("comparisons", trained), ("comparisons_test", tested)):
        rows = [{"messages": [{"role": "user", "content": question}]} for question in questions]
        write_jsonl(first / f"{name}.jsonl", rows)
    results, folder = stage(earlier_rounds=[first])
    assert results["test_comparisons"] == results["test_comparisons_wanted"] == 3
    assert set(tested) < asked(folder, "comparisons_test") and set(trained) < asked(folder, "comparisons")


def test_an_annotator_that_prefers_what_it_sees_first_prefers_no_version(stage):
    count = 300
    results, folder = stage(
        annotator={"function": f"{__name__}.prefers_the_first"},
        prompts={"made": {"function": f"{__name__}.prompts", "arguments": {"count": count}, "format": "prompts"}},
    )
    assert results["first_preferred"] == 1.0
    # A half, with a standard deviation of 0.029; five of them.
    assert abs(results["newest_preferred"] - 0.5) < 0.145
    for row in (*read_jsonl(folder / "comparisons.jsonl"), *read_jsonl(folder / "comparisons_test.jsonl")):
        assert row["sources"][row["preferred_version"]]["shown_as"] == "a"
        assert row["chosen"].startswith(row["preferred_version"])


def test_a_comparison_says_where_its_answers_come_from(stage):
    _, folder = stage()
    for row in read_jsonl(folder / "comparisons.jsonl"):
        check_record(row, "preferences")
        assert row["round"] == 2
        assert row["chosen"].startswith(row["preferred_version"])
        assert row["sources"]["newest"]["temperature"] != row["sources"]["earlier"]["temperature"]
        assert row["sources"]["newest"]["model"] == "newest"
        assert {source["shown_as"] for source in row["sources"].values()} == {"a", "b"}
        assert Letters().decode(row["chosen_tokens"]) == row["chosen"]


def test_the_annotator_is_not_told_which_version_wrote_an_answer(stage):
    stage()
    seen = prefers_more.__kwdefaults__["seen"]
    fields = {"messages", "prompt_tokens", "response_a", "response_b", "tokens_a", "tokens_b", "domain"}
    assert seen and all(comparison.keys() == fields for comparison in seen)


def test_holding_out_more_than_there_are_prompts_is_refused_before_anything_is_sampled(stage, monkeypatch):
    monkeypatch.delattr(sampling, "generate")
    with pytest.raises(ValueError, match=r"test_comparisons=12, but 12 prompts give at most 12 comparisons"):
        stage(test_comparisons=12)


def test_holding_out_all_that_was_made_is_refused(stage):
    with pytest.raises(ValueError, match=r"the_stage: all 10 comparisons that were made, of 10 prompts, are held out"):
        stage(test_comparisons=10)


def test_a_language_model_behind_an_address_annotates_and_is_asked_nothing_twice(stage, tmp_path, monkeypatch):
    """It ends the stage when it fails; the next run asks for the rest."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def answer(messages):
        shown = json.loads(messages[1]["content"])
        by_position = shown["dialogue"][0]["content"] == "question 1"
        better = "first" if by_position or shown["first"] > shown["second"] else "second"
        return json.dumps({"better": better, "by": "better", "first_safe": True, "second_safe": True})

    with ChatServer(answer) as server:
        chat = {"base_url": server.address, "model": "judge", "key_variable": "", "cache": str(tmp_path / "chat")}
        chat |= {"retries": 0, "at_once": 1}
        annotator = {"function": "llama2_jax.annotation.chat_api.annotate", "arguments": {"chat": chat}}
        server.faults = [0] * 9 + [500]
        with pytest.raises(ChatError, match="judge: "):
            stage(annotator=annotator)
        before = len(server.requests)
        assert before >= 10
        results, _ = stage(annotator=annotator)
        # Eleven pairs in two orders; only the request that failed was sent twice.
        assert len(server.requests) == 22 + 1
        results_again, _ = stage(annotator=annotator)
        assert len(server.requests) == 22 + 1
    assert results == results_again
    assert (results["ties_left_out"], results["comparisons"] + results["test_comparisons"]) == (1, 10)
    assert results["position_bias"] == round(12 / 22, 4)
