"""The best of K answers, and the best of all rounds."""

import collections
import gc
import json
import logging
import types
import weakref

import jax
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline import encoding
from llama2_jax.pipeline.best_of_n import (
    Candidates,
    best_of_all_rounds,
    best_of_each_prompt,
    distinct_prompts,
    keep_best,
    proportional_shares,
    rescored,
)
from llama2_jax.pipeline.reward_models import Scores
from llama2_jax.pipeline.stage_files import read_jsonl, write_json, write_jsonl
from llama2_jax.stages import rejection_sampling
from tests.smallest import Letters, smallest_runtime

PROMPTS = [
    {"messages": [{"role": "user", "content": f"question {index}"}], "safety": index == 1, "category": f"kind {index}"}
    for index in range(3)
]


def answer(prompt, text, finished=True):
    tokens = np.asarray([*map(ord, text), *([Letters.eos_id] if finished else [])], np.int32)
    return Sample(prompt, tokens, finished, np.zeros(len(tokens), np.float32))


def candidates():
    """Three prompts with two answers: the second one is the best; the first one; and none that ended."""
    unfinished = -np.inf
    return Candidates(
        answers=[
            [answer(0, "poor"), answer(0, "good")],
            [answer(1, "good"), answer(1, "cut o", finished=False)],
            [answer(2, "cut o", finished=False), answer(2, "cut of", finished=False)],
        ],
        rewards=np.asarray([[0.2, 0.7], [0.4, unfinished], [unfinished, unfinished]]),
        helpfulness=np.asarray([[-1.0, 2.0], [3.0, 9.0], [9.0, 9.0]]),
        safety=np.asarray([[-2.0, 1.0], [0.5, 9.0], [9.0, 9.0]]),
    )


def kept():
    rows = keep_best(PROMPTS, candidates(), temperature=1.0, round_number=1, tokenizer=Letters())
    return [row for row in rows if row is not None]


def test_the_best_finished_answer_is_kept_with_its_ids_and_where_it_comes_from():
    rows = keep_best(PROMPTS, candidates(), temperature=1.2, round_number=4, tokenizer=Letters())
    assert [row and row["response"] for row in rows] == ["good", "good", None]
    assert rows[0] == {
        "messages": PROMPTS[0]["messages"],
        "response": "good",
        "response_tokens": [*map(ord, "good"), Letters.eos_id],
        "safety": False,
        "category": "kind 0",
        "temperature": 1.2,
        "round": 4,
        "rewards": {"helpfulness": 2.0, "safety": 1.0, "combined": 0.7},
    }


def test_an_answer_that_did_not_end_is_never_kept():
    rows = kept()
    assert all(row["response_tokens"][-1] == Letters.eos_id for row in rows)
    assert [row["category"] for row in rows] == ["kind 0", "kind 1"]


def bag(tagged, untagged):
    """Rows in no order; those with a tag have far lower rewards."""
    rewards = np.random.default_rng(2).permutation(tagged + untagged)
    return [
        {"safety": index < tagged, "rewards": {"combined": float(reward) - 1000 * (index < tagged)}, "number": index}
        for index, reward in enumerate(rewards)
    ]


@pytest.mark.parametrize(
    ("tagged", "size", "kept_for_safety"),
    [(30, 80, 30), (30, 60, 30), (30, 40, 20), (95, 40, 35)],
    ids=["all", "just_all", "half", "more_than_half_where_there_is_nothing_else"],
)
def test_of_all_rounds_the_highest_are_kept_and_all_for_safety_up_to_half(tagged, size, kept_for_safety):
    rows = bag(tagged=tagged, untagged=100 - tagged)
    kept = best_of_all_rounds(rows, size)
    for safety, share in ((True, kept_for_safety), (False, size - kept_for_safety)):
        group = sorted((row["rewards"]["combined"] for row in rows if row["safety"] == safety), reverse=True)
        ours = sorted((row["rewards"]["combined"] for row in kept if row["safety"] == safety), reverse=True)
        assert ours == group[:share]


def test_no_kind_of_prompt_is_crowded_out_by_one_whose_scores_are_higher():
    rows = [
        {"safety": False, "category": category, "rewards": {"combined": level + number / 100}}
        for level, (category, count) in enumerate((("howto", 20), ("fact", 50), ("story", 30)))
        for number in range(count)
    ]
    kept = best_of_all_rounds(rows, 20)
    assert collections.Counter(row["category"] for row in kept) == {"howto": 4, "fact": 10, "story": 6}
    assert min(row["rewards"]["combined"] for row in kept if row["category"] == "howto") == 0.16


@pytest.mark.parametrize("size", range(1, 10))
@pytest.mark.parametrize(("tagged", "untagged"), [(5, 5), (0, 10), (10, 0), (3, 7)])
def test_a_bag_is_as_large_as_asked_for(tagged, untagged, size):
    assert len(best_of_all_rounds(bag(tagged, untagged), size)) == size


def test_a_bag_that_is_small_enough_is_kept_whole():
    rows = bag(3, 4)
    assert best_of_all_rounds(rows, 7) == rows


def test_rows_of_earlier_rounds_are_scored_again_by_the_ids_that_were_sampled():
    rows = kept()
    seen = []

    def score(rows):
        seen.extend(list(map(int, row["tokens"])) for row in rows)
        assert [row["safety"] for row in rows] == [False, True]
        return Scores(np.asarray([5.0, 6.0]), np.asarray([7.0, 8.0]), np.asarray([0.0, 8.0]))

    again = rescored(rows, types.SimpleNamespace(score=score), Letters())
    prompt = [Letters.bos_id, *map(ord, "[INST] question 0 [/INST]")]
    assert seen[0] == [*prompt, *rows[0]["response_tokens"]]
    assert again[0]["rewards"] == {"helpfulness": 5.0, "safety": 7.0, "combined": 0.5}
    assert {name: value for name, value in again[0].items() if name != "rewards"} == {
        name: value for name, value in rows[0].items() if name != "rewards"
    }
    assert rows[0]["rewards"]["combined"] == 0.7


@pytest.mark.parametrize(
    ("bag", "rounds", "left_out"), [("all_rounds", 0, 0), ("all_rounds", 1, 2), ("last_round", 1, 0)]
)
def test_the_bag_is_as_configured_and_the_reward_models_are_freed_before_the_fine_tuning(
    monkeypatch, tmp_path, bag, rounds, left_out
):
    rows = kept()
    loaded, alive = [], []

    class Models:
        def score(self, rows):
            ones = np.ones(len(rows))
            return Scores(ones, ones, ones)

    def load(*_):
        models = Models()
        loaded.append(weakref.ref(models))
        return models

    def finetune(config, start, dialogues, bos_id, runtime, weights):
        gc.collect()
        alive.extend(reference() for reference in loaded)
        return {"rows": len(dialogues["bag"])}

    def sample(config, inputs, tokenizer, reward_models, runtime):
        write_jsonl(runtime.folder / "samples.jsonl", rows)
        write_json(runtime.folder / "sweep.json", dict.fromkeys(("chosen", *rejection_sampling.SWEEP_RESULTS), 1))

    for name, stand_in in (("load_reward_models", load), ("finetune", finetune), ("_sample_and_keep", sample)):
        monkeypatch.setattr(rejection_sampling, name, stand_in)
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda _: Letters())
    folders = [epath.Path(tmp_path / name) for name in ("now", "earlier")]
    for folder in folders:
        folder.mkdir()
        write_jsonl(folder / "samples.jsonl", rows)
    (folders[0] / "samples.jsonl").unlink()
    runtime = smallest_runtime(folders[0])
    config = ConfigDict(
        {
            "safety_threshold": 0.15,
            "sources": {},
            "finetune": {},
            "bag": bag,
            "bag_size": 3,
            "bag_answers_per_prompt": 1,
        }
    )
    results = rejection_sampling.run(
        config, {"tokenizer": tmp_path, "start": "", "bags": folders[1:] * rounds}, runtime
    )
    # The earlier round answered the same prompts.
    assert results["rows"] == results["bag"] == 2 and alive == [None]
    assert results["bag_repeats_left_out"] == left_out


def row(question, reward, number=1, **more):
    """A row of a samples file; the fields are in the order of its round, which makes no other prompt of it."""
    message = {"role": "user", "content": question}
    messages = [message if number % 2 else dict(reversed(message.items()))]
    return {"messages": messages, "safety": False, "round": number, "rewards": {"combined": reward}, **more}


def test_of_all_rounds_one_answer_to_a_prompt_is_kept_the_best_by_the_newest_reward():
    rows = [row("a", 0.5, 3), row("b", 0.9, 3), row("a", 0.7, 1), row("c", 0.1, 1), row("a", 0.6, 2), row("b", 0.8, 2)]
    assert best_of_each_prompt(rows) == [rows[1], rows[2], rows[3]]
    assert best_of_each_prompt(rows, 2) == [rows[1], rows[2], rows[3], rows[4], rows[5]]
    assert best_of_each_prompt(rows, 99) == rows
    with pytest.raises(ValueError, match="bag_answers_per_prompt=0"):
        best_of_each_prompt(rows, 0)


def test_of_equal_answers_the_newest_round_s_is_kept():
    rows = [row("a", 0.5, 1), row("a", 0.5, 4), row("a", 0.5, 2)]
    assert best_of_each_prompt(rows) == [rows[1]]


def test_another_system_message_or_an_earlier_turn_makes_another_prompt():
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    rows = [row("a", 0.5), row("a", 0.4)]
    rows[1]["messages"] = [{"role": "system", "content": "s"}, *rows[1]["messages"]]
    rows.append(row("a", 0.3))
    rows[2]["messages"] = [*turns, *rows[2]["messages"]]
    assert best_of_each_prompt(rows) == rows


def test_a_prompt_that_the_sources_repeat_is_sampled_once():
    records = [row(question, 0.0, number) for number, question in enumerate("abacab")]
    prompts = [[number] for number in range(6)]
    assert distinct_prompts(records, prompts) == ([records[0], records[1], records[3]], [[0], [1], [3]])


@pytest.mark.parametrize(("sizes", "total"), [((5, 5), 3), ((1, 98, 1), 10), ((2, 3), 99), ((7,), 7), ((0, 4), 2)])
def test_shares_add_up_and_none_is_larger_than_its_group(sizes, total):
    shares = proportional_shares(sizes, total)
    assert sum(shares) == min(total, sum(sizes))
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))


@pytest.fixture
def sampled(tmp_path, monkeypatch):
    """Runs the sampling of the stage with answers that `answer(prompt index, temperature, name)` gives."""

    def run(records, answer_of, **changes):
        asked = {}

        def sample(name, policy, prompts, sampling, key, rows, runtime, samples_per_prompt):
            asked[name] = (list(prompts), np.asarray(jax.random.key_data(key)).tolist())
            samples = [
                answer_of(index, sampling.temperature, name)
                for index in range(len(prompts))
                for _ in range(samples_per_prompt)
            ]
            return rows(slice(0, len(prompts)), samples)

        def score(rows):
            # A mark of the answer's length for every answer.
            logit = np.asarray([len(one["tokens"]) for one in rows], float) / 100
            return Scores(logit, logit, logit)

        monkeypatch.setattr(rejection_sampling, "sample_resumable", sample)
        monkeypatch.setattr(rejection_sampling, "load_policy", lambda *_: None)
        monkeypatch.setattr(
            rejection_sampling,
            "read_prompts",
            lambda *_: (records, [Letters().encode(one["messages"][-1]["content"], bos=True) for one in records]),
        )
        config = ConfigDict({
            "prompts": {}, "max_new_tokens": 6, "samples_per_prompt": 2, "temperatures": (0.4, 0.6, 0.8),
            "sweep_prompts": 4, "sweep_samples_per_prompt": 3, "sweep_error_rate": 0.05, "top_p": 1.0, "round": 2,
            **changes,
        })  # fmt: skip
        folder = epath.Path(tmp_path)
        rejection_sampling._sample_and_keep(
            config, {"policy": folder / "the_policy"}, Letters(), types.SimpleNamespace(score=score),
            smallest_runtime(folder),
        )  # fmt: skip
        return asked, json.loads((folder / "sweep.json").read_text()), read_jsonl(folder / "samples.jsonl")

    return run


def test_each_temperature_answers_the_same_prompts_with_the_same_randomness(sampled):
    records = [{**row(f"question {index % 9}", 0.0), "source": "ab"[index // 9]} for index in range(18)]
    asked, sweep, rows = sampled(records, lambda index, temperature, _: answer(index, "fine"))
    assert asked.keys() == {"sweep 0.4", "sweep 0.6", "sweep 0.8", "samples"}
    assert asked["sweep 0.4"] == asked["sweep 0.6"] == asked["sweep 0.8"] != asked["samples"]
    assert len(asked["sweep 0.4"][0]) == sweep["sweep_prompts"] == 4
    assert asked["sweep 0.4"][1] != asked["samples"][1]
    # The sweep may sample more than the round, which shows what more answers would bring.
    assert (len(sweep["temperatures"]["0.4"]["max"]), len(sweep["best_of"]["max"])) == (3, 2)
    # All temperatures did as well: the middle one.
    assert sweep["chosen"] == 0.6 and len(rows) == sweep["prompts"] == 9
    assert sweep["repeated_prompts_left_out"] == 9


def test_a_temperature_that_is_clearly_better_is_taken(sampled):
    def better_when_hot(index, temperature, _):
        return answer(index, "long answer" if temperature == 0.8 else "short" + "er" * (index % 2))

    _, sweep, rows = sampled([row(f"question {index}", 0.0) for index in range(6)], better_when_hot)
    assert sweep["chosen"] == 0.8 and {one["temperature"] for one in rows} == {0.8}
    lead = sweep["temperature_rewards"]["0.8"]
    assert lead["minus_middle"] > sweep["needed_standard_errors"] * lead["minus_middle_standard_error"] > 0


NOTHING = (
    "12 answers to 6 prompts", "none of them ended", "max_new_tokens=6", "raise config.answer_tokens", "'the_policy'",
    "fine-tune it longer",
)  # fmt: skip


def test_where_no_answer_ends_a_warning_says_what_was_found_and_what_to_do(sampled, caplog):
    records = [row(f"question {index}", 0.0) for index in range(6)]
    with caplog.at_level(logging.WARNING):
        _, sweep, rows = sampled(records, lambda index, *_: answer(index, "cut of", finished=False))
    assert rows == [] and sweep["prompts_without_finished_answer"] == 6
    assert all(words in caplog.text for words in NOTHING)


@pytest.mark.parametrize("others", [0, 1], ids=["nothing else", "dialogues of another stage"])
def test_with_nothing_else_to_train_on_it_is_an_error(monkeypatch, tmp_path, others):
    monkeypatch.setattr(rejection_sampling, "load_reward_models", lambda *_: None)
    monkeypatch.setattr(rejection_sampling, "finetune", lambda *_, **__: {})
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda _: Letters())
    now, other = epath.Path(tmp_path / "now"), epath.Path(tmp_path / "other")
    for folder in (now, other):
        folder.mkdir()
    write_jsonl(now / "samples.jsonl", [])
    write_json(now / "sweep.json", {**dict.fromkeys(rejection_sampling.SWEEP_RESULTS, 1), "chosen": 1.0, "prompts": 6})
    write_jsonl(other / "dialogues.jsonl", kept())
    config = ConfigDict({
        "safety_threshold": 0.15, "sources": {}, "finetune": {}, "samples_per_prompt": 2, "max_new_tokens": 6,
        "bag": "last_round",
    })  # fmt: skip
    inputs = {"tokenizer": now, "start": now, "policy": now.parent / "the_policy", "dialogues": (other,) * others}
    if others:
        assert rejection_sampling.run(config, inputs, smallest_runtime(now))["bag"] == 0
        return
    with pytest.raises(ValueError) as error:
        rejection_sampling.run(config, inputs, smallest_runtime(now))
    assert all(words in str(error.value) for words in NOTHING)


def test_one_answer_that_ends_is_enough(sampled):
    def only_the_first(index, temperature, name):
        return answer(index, "fine", finished=name == "samples" and index == 0)

    _, sweep, rows = sampled([row(f"question {index}", 0.0) for index in range(6)], only_the_first)
    assert len(rows) == 1 and sweep["prompts_without_finished_answer"] == 5


def demonstrations(*, seed):
    del seed
    return [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]


def test_the_demonstrations_join_the_bag_by_their_weight(monkeypatch, tmp_path):
    given = {}

    def finetune(config, start, dialogues, bos_id, runtime, weights):
        given.update(dialogues={name: len(of) for name, of in dialogues.items()}, weights=weights)
        return {}

    monkeypatch.setattr(rejection_sampling, "finetune", finetune)
    monkeypatch.setattr(rejection_sampling, "_fill_bag", lambda *_: (kept(), 0))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda _: Letters())
    write_json(tmp_path / "sweep.json", dict.fromkeys(("chosen", *rejection_sampling.SWEEP_RESULTS), 1))
    source = {"function": f"{__name__}.demonstrations", "format": "dialogues", "weight": 2.5}
    config = ConfigDict({"sources": {"people": source}, "finetune": {}})
    inputs = {"tokenizer": tmp_path, "start": ""}
    rejection_sampling.run(config, inputs, smallest_runtime(tmp_path))
    assert given == {"dialogues": {"bag": len(kept()), "people": 1}, "weights": {"people": 2.5}}
    config.sources.bag = source
    with pytest.raises(ValueError, match="the_stage: a source may not be named bag: other dialogues are"):
        rejection_sampling.run(config, inputs, smallest_runtime(tmp_path))
