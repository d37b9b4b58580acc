"""A model answers each prompt several times; a ranker's labels become rankings."""

import json
import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.data.records import check_record
from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline import encoding, sampling
from llama2_jax.pipeline.stage_files import read_jsonl
from llama2_jax.stages import rank_answers
from llama2_jax.stages.rank_answers import draw_counts
from tests.chat_server import ChatServer
from tests.smallest import Letters, smallest_model, smallest_runtime


def prompts(*, seed, count):
    """A source: every third prompt is a safety matter."""
    del seed
    return [
        {"messages": [{"role": "user", "content": f"question {index}"}], "safety": index % 3 == 0}
        for index in range(count)
    ]


def by_last_letter(rows, *, seed, seen=[]):  # noqa: B006 (what the ranker was shown, for the test to look at)
    """A ranker: the later in the alphabet the last letter, the better; to question 4 all answers are as good."""
    del seed
    seen[:] = rows
    return [
        {"ranks": [1] * len(row["responses"])}
        if row["messages"][0]["content"] == "question 4"
        else {"ranks": [1 + sum(other[-1] > one[-1] for other in row["responses"]) for one in row["responses"]]}
        for row in rows
    ]


def of_one_alone(rows, *, seed):
    del seed
    return [{"ranks": [1]} for _ in rows]


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Runs the stage with answers that say their prompt and end in a letter that no other answer to it has."""

    def generate(model, params, prompts, sampling, key, eos_id, *, samples_per_prompt, prompt_ids):
        asked = [Letters().decode(prompt) for prompt in prompts]
        texts = [f"{prompt[7:-8]} {'fbdaecghi'[sample]}" for prompt in asked for sample in range(samples_per_prompt)]
        return [
            Sample(index, np.asarray([*map(ord, text), eos_id], np.int32), True, np.zeros(len(text) + 1, np.float32))
            for index, text in enumerate(texts)
        ]

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(sampling, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=folder.name))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())

    def run(**changes):
        runtime = smallest_runtime(tmp_path)
        config = ConfigDict({
            "prompts": {"made": {"function": f"{__name__}.prompts", "arguments": {"count": 12}, "format": "prompts"}},
            "ranker": {"function": f"{__name__}.by_last_letter", "arguments": {}}, "answers_per_prompt": (2, 4),
            "judged_answers": 200, "temperature": 0.7, "top_p": 1.0, "max_new_tokens": 20, **changes,
        })  # fmt: skip
        inputs = {role: runtime.folder / role for role in ("tokenizer", "policy")}
        run.config = config
        return rank_answers.run(config, inputs, runtime), read_jsonl(tmp_path / "rankings.jsonl")

    return run


def test_every_prompt_is_answered_two_to_four_times_and_ranked(stage):
    results, rows = stage()
    assert [row["messages"][0]["content"] for row in rows] == [f"question {i}" for i in range(12) if i != 4]
    assert results["all_tied_left_out"] == 1 and results["prompts"] == 11
    for row in rows:
        check_record(row, "rankings")
        question, count = row["messages"][0]["content"], len(row["answers"])
        assert 2 <= count <= 4
        assert row["answers"] == [f"{question} {letter}" for letter in "fbda"[:count]]
        assert [Letters().decode(ids) for ids in row["answers_tokens"]] == row["answers"]
        # f, b, d and a: f is the best one, then d, b and a.
        assert row["ranks"] == {2: [1, 2], 3: [1, 3, 2], 4: [1, 3, 2, 4]}[count]
        assert row["domain"] == ("safety" if int(question.split()[1]) % 3 == 0 else "helpfulness")
        assert row["sources"] == {"model": "policy", "temperature": 0.7}
    counts = [len(row["answers"]) for row in rows]
    assert results["answers_per_prompt"] == {str(n): counts.count(n) for n in sorted(set(counts))}
    assert results["comparisons"] == sum(n * (n - 1) // 2 for n in counts)
    seen = by_last_letter.__kwdefaults__["seen"]
    assert results["judged_answers"] == sum(len(row["responses"]) for row in seen)
    assert {frozenset(row) for row in seen} == {
        frozenset({"messages", "prompt_tokens", "responses", "tokens", "domain"})
    }


def test_raters_read_no_more_answers_than_the_budget(stage):
    results, rows = stage(judged_answers=11)
    assert results["judged_answers"] <= 11 and len(rows) < 6


def test_the_counts_are_drawn_alike_and_the_budget_is_used():
    counts = draw_counts(6000, (4, 9), 10**6, seed=0)
    assert list(counts) == list(range(6000))
    found = np.bincount(list(counts.values()), minlength=10)
    # 1000 each, with a standard deviation of 29; five of them.
    assert (found[:4] == 0).all() and (abs(found[4:] - 1000) < 145).all()
    some = draw_counts(6000, (4, 9), 1000, seed=0)
    assert 997 <= sum(some.values()) <= 1000 and set(some) < set(counts)
    # Not the first ones: prompts of all sources have their share.
    assert np.mean(list(some)) == pytest.approx(3000, abs=5 * 6000 / 12**0.5 / len(some) ** 0.5)
    assert some == draw_counts(6000, (4, 9), 1000, seed=0) != draw_counts(6000, (4, 9), 1000, seed=1)


def test_a_ranker_that_leaves_answers_out_is_named(stage):
    with pytest.raises(ValueError, match=r"the_stage: the ranker .*of_one_alone: ranking 0 is .*; wanted the field"):
        stage(ranker={"function": f"{__name__}.of_one_alone"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers_per_prompt": (1, 4)}, r"answers_per_prompt=\(1, 4\): wanted the least, at least 2"),
        ({"answers_per_prompt": (5, 4)}, r"answers_per_prompt=\(5, 4\)"),
        ({"judged_answers": 3}, "judged_answers=3: wanted at least those of one prompt, up to 4"),
    ],
)
def test_numbers_that_give_no_ranking_are_refused(stage, changes, message):
    stage()
    rank_answers.check(stage.config, {}, lambda sources: 12)
    with pytest.raises(ValueError, match=message):
        rank_answers.check(ConfigDict({**stage.config.to_dict(), **changes}), {}, lambda sources: 12)


def test_it_is_sized_for_the_most_answers_and_a_ranker_that_is_a_model(stage, tmp_path):
    stage()
    stage.config.inputs = {"policy": "sft", "annotator_safety": "annotator_safety"}
    mesh = smallest_runtime(tmp_path).mesh
    work = rank_answers.device_work(stage.config, smallest_model(), mesh)
    assert [one.name for one in work.programs] == ["prefill", "decode", "annotator_safety scores"]


def test_a_language_model_behind_an_address_ranks_and_is_asked_nothing_twice(stage, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    _, by_function = stage()

    def answer(messages):
        responses = json.loads(messages[1]["content"])["responses"]
        return json.dumps({"ranks": [1 + sum(other[-1] > one[-1] for other in responses) for one in responses]})

    with ChatServer(answer) as server:
        chat = {"base_url": server.address, "model": "judge", "key_variable": "", "cache": str(tmp_path / "chat")}
        ranker = {"function": "llama2_jax.annotation.chat_ranking.rank", "arguments": {"chat": chat}}
        results, rows = stage(ranker=ranker)
        assert len(server.requests) == 2 * 12, "each prompt's answers in two orders"
        assert stage(ranker=ranker)[0] == results
        assert len(server.requests) == 2 * 12
    ranks = {row["messages"][0]["content"]: row["ranks"] for row in rows}
    assert ranks.pop("question 4") and ranks == {row["messages"][0]["content"]: row["ranks"] for row in by_function}
