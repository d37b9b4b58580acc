"""The best of K answers, and the best of all rounds."""

import collections
import gc
import itertools
import types
import weakref

import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline import encoding
from llama2_jax.pipeline.best_of_n import Candidates, best_of_all_rounds, best_of_curve, keep_best, rescored
from llama2_jax.pipeline.reward_models import Scores
from llama2_jax.pipeline.stage_files import write_json, write_jsonl
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


def test_the_curve_against_a_slow_one():
    rewards = np.random.default_rng(0).uniform(size=(7, 5))
    rewards[2, 1] = rewards[4] = -np.inf
    expected = {"max": [], "median": []}
    for n in range(1, 6):
        rows = [[0.0 if reward == -np.inf else reward for reward in row[:n]] for row in rewards.tolist()]
        expected["max"].append(sum(max(row) for row in rows) / 7)
        middles = [(sorted(row)[(n - 1) // 2] + sorted(row)[n // 2]) / 2 for row in rows]
        expected["median"].append(sum(middles) / 7)
    curve = best_of_curve(rewards)
    for name, values in expected.items():
        # Sums of a few doubles in another order.
        np.testing.assert_allclose(curve[name], values, rtol=1e-12)


def test_the_best_of_more_answers_is_never_worse():
    rewards = np.random.default_rng(1).uniform(size=(20, 16))
    rewards[rewards < 0.2] = -np.inf
    best = best_of_curve(rewards)["max"]
    assert len(best) == 16
    assert all(later >= earlier for earlier, later in itertools.pairwise(best))


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


def test_of_all_rounds_the_highest_are_kept_in_the_proportion_of_both_kinds():
    rows = bag(tagged=30, untagged=70)
    kept = best_of_all_rounds(rows, 10)
    for tagged, share in ((True, 3), (False, 7)):
        group = sorted((row["rewards"]["combined"] for row in rows if row["safety"] == tagged), reverse=True)
        assert (
            sorted((row["rewards"]["combined"] for row in kept if row["safety"] == tagged), reverse=True)
            == group[:share]
        )


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


@pytest.mark.parametrize("rounds", [0, 1], ids=["of this round", "of all rounds"])
def test_the_reward_models_are_freed_before_the_fine_tuning(monkeypatch, tmp_path, rounds):
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
        sweep = dict.fromkeys(("chosen", "temperatures", "best_of", "prompts", "prompts_without_finished_answer"), 1)
        write_json(runtime.folder / "sweep.json", sweep)

    for name, stand_in in (("load_reward_models", load), ("finetune", finetune), ("_sample_and_keep", sample)):
        monkeypatch.setattr(rejection_sampling, name, stand_in)
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda _: Letters())
    folders = [epath.Path(tmp_path / name) for name in ("now", "earlier")]
    for folder in folders:
        folder.mkdir()
        write_jsonl(folder / "samples.jsonl", rows)
    (folders[0] / "samples.jsonl").unlink()
    runtime = smallest_runtime(folders[0])
    config = ConfigDict({"safety_threshold": 0.15, "sources": {}, "finetune": {}, "bag_size": 3})
    results = rejection_sampling.run(
        config, {"tokenizer": tmp_path, "start": "", "bags": folders[1:] * rounds}, runtime
    )
    assert results["rows"] == results["bag"] == 2 + rounds and alive == [None]


def demonstrations(*, seed):
    del seed
    return [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]


def test_the_demonstrations_join_the_bag_by_their_weight(monkeypatch, tmp_path):
    given = {}

    def finetune(config, start, dialogues, bos_id, runtime, weights):
        given.update(dialogues={name: len(of) for name, of in dialogues.items()}, weights=weights)
        return {}

    monkeypatch.setattr(rejection_sampling, "finetune", finetune)
    monkeypatch.setattr(rejection_sampling, "_fill_bag", lambda *_: kept())
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda _: Letters())
    write_json(tmp_path / "sweep.json", dict.fromkeys(
        ("chosen", "temperatures", "best_of", "prompts", "prompts_without_finished_answer"), 1
    ))  # fmt: skip
    source = {"function": f"{__name__}.demonstrations", "format": "dialogues", "weight": 2.5}
    config = ConfigDict({"sources": {"people": source}, "finetune": {}})
    inputs = {"tokenizer": tmp_path, "start": ""}
    rejection_sampling.run(config, inputs, smallest_runtime(tmp_path))
    assert given == {"dialogues": {"bag": len(kept()), "people": 1}, "weights": {"people": 2.5}}
    config.sources.bag = source
    with pytest.raises(ValueError, match="the_stage: a source may not be named bag: other dialogues are"):
        rejection_sampling.run(config, inputs, smallest_runtime(tmp_path))
