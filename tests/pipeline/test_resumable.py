"""Sampling goes on after the shards that exist, and ends as if it had never been cut off."""

import dataclasses
import functools
import json
import logging
import types

import jax
import pytest
from ml_collections import ConfigDict

from llama2_jax.inference import turns
from llama2_jax.models.llama import init_language_model, init_scalar_model
from llama2_jax.pipeline import encoding, resumable, sampling
from llama2_jax.pipeline.resumable import map_resumable, remove_shards
from llama2_jax.pipeline.reward_models import RewardModels
from llama2_jax.stages import (
    annotate,
    context_distillation,
    evaluate,
    ghost_attention,
    rejection_sampling,
)
from tests.smallest import Letters, smallest_model, smallest_runtime


@pytest.fixture
def runtime(tmp_path):
    return smallest_runtime(tmp_path)


class Cut(Exception):
    """Stands for the end of the process."""


class Squares:
    """Rows of numbers; what was asked for is remembered, and the process ends after so many resumable."""

    def __init__(self, ends_after=99):
        self.asked, self.ends_after = [], ends_after

    def __call__(self, first, stop):
        if len(self.asked) == self.ends_after:
            raise Cut
        self.asked.append((first, stop))
        return [{"square": number**2, "half": number / 3} for number in range(first, stop)]


ROWS = [{"square": number**2, "half": number / 3} for number in range(10)]


def test_rows_come_in_order_portion_by_portion(runtime):
    work = Squares()
    assert map_resumable("squares", 10, work, runtime, size=4) == ROWS
    assert work.asked == [(0, 4), (4, 8), (8, 10)]


def test_nothing_to_do(runtime):
    assert map_resumable("squares", 0, Squares(ends_after=0), runtime) == []


def test_by_default_a_portion_is_eight_batches_of_generation(runtime):
    work, model = Squares(), smallest_model(generation_rows=3)
    map_resumable("squares", 50, work, dataclasses.replace(runtime, model=model))
    assert work.asked == [(0, 24), (24, 48), (48, 50)]


def test_what_was_made_before_is_not_made_again(runtime):
    with pytest.raises(Cut):
        map_resumable("squares", 10, Squares(ends_after=2), runtime, size=3)
    # Shards of another size: it may follow the machine.
    work = Squares()
    assert map_resumable("squares", 10, work, runtime, size=2) == ROWS
    assert work.asked == [(6, 8), (8, 10)]
    assert map_resumable("squares", 10, Squares(ends_after=0), runtime) == ROWS
    work = Squares()
    map_resumable("others", 2, work, runtime)
    assert work.asked == [(0, 2)]


@pytest.mark.parametrize(
    "damage", [lambda text: text[: len(text) // 2], lambda text: "", None], ids=["cut", "empty", "gone"]
)
def test_a_portion_that_is_damaged_is_made_again_with_those_behind_it(runtime, damage, caplog):
    map_resumable("squares", 10, Squares(), runtime, size=3)
    file = runtime.folder / "shards" / "squares" / "3.jsonl"
    file.write_text(damage(file.read_text())) if damage else file.unlink()
    work = Squares()
    with caplog.at_level(logging.WARNING):
        assert map_resumable("squares", 10, work, runtime, size=3) == ROWS
    assert work.asked == [(3, 6), (6, 9), (9, 10)]
    assert (f"{file} is damaged" in caplog.text) == (damage is not None)


def test_sources_that_lost_records_are_named(runtime):
    map_resumable("squares", 10, Squares(), runtime)
    with pytest.raises(ValueError, match=r"shards/squares has 10 rows, but there are 9 items .* --redo=the_stage"):
        map_resumable("squares", 9, Squares(), runtime)


def test_a_row_too_few_is_an_error(runtime):
    with pytest.raises(ValueError, match="the_stage, squares: 1 rows were returned for the items 0 to 4"):
        map_resumable("squares", 4, lambda first, stop: [{}], runtime)


def test_shards_are_removed(runtime):
    map_resumable("squares", 10, Squares(), runtime, size=3)
    for _ in range(2):
        remove_shards(runtime.folder)
        assert not (runtime.folder / "shards").exists()


def prompts(*, seed):
    del seed
    words = ["a", "what", "is", "b"]
    return [
        {
            "messages": [{"role": "user", "content": " ".join(words[: 1 + index % 4]) + "?" * (index // 4)}],
            "safety": index % 2 == 0,
            "category": "crime" if index < 5 else "",
        }
        for index in range(7)
    ]


def preprompts(*, seed):
    del seed
    return [{"preprompt": "be safe"}, {"preprompt": "say why", "category": "crime"}]


def dialogues(*, seed):
    del seed
    return [
        {
            "turns": ["a", "b"][: 1 + index % 2],
            "messages": [{"role": "system", "content": "x"}],
            "instruction": "do",
            "terse": "d",
        }
        for index in range(7)
    ]


def annotator(comparisons, *, seed):
    del seed
    return [{"preferred": "a", "rating": "better", "safety": None} for _ in comparisons]


def judge(rows, *, seed):
    del seed
    verdict = {"safety": 1.0, "violation": False, "refusal": False, "instruction_kept": True}
    return [{"helpfulness": len(row["response"]) / 100, **verdict} for row in rows]


def source(function, form):
    return {"made": {"function": f"{__name__}.{function}", "format": form}}


STAGES = {
    "annotate": (annotate, {"prompts": source("prompts", "prompts"), "annotator": {"function": f"{__name__}.annotator"},
                            "temperatures": (0.7, 1.3), "round": 1, "test_comparisons": 1}),
    "evaluate": (evaluate, {"prompts": source("prompts", "prompts"), "judge": {"function": f"{__name__}.judge"},
                            "instruction_dialogues": source("dialogues", "raw"), "instruction_turns": (1, 2),
                            "versions": ("one", "two"), "baseline": "one", "safety_threshold": 0.15}),
    "context_distillation": (context_distillation, {"prompts": source("prompts", "prompts"),
                                                    "preprompts": source("preprompts", "raw"),
                                                    "compared_prompts": 5}),
    "ghost_attention": (ghost_attention, {"dialogues": source("dialogues", "raw"), "instructions": {},
                                          "terse_fraction": 0.5, "trained_answers": 2}),
    "rejection_sampling": (rejection_sampling, {"prompts": source("prompts", "prompts"), "samples_per_prompt": 3,
                                                "temperatures": (0.8, 1.2), "sweep_prompts": 4, "round": 1,
                                                "sweep_samples_per_prompt": 4, "sweep_error_rate": 0.05,
                                                "safety_threshold": 0.15, "sources": {}, "finetune": {},
                                                "bag": "last_round", "bag_size": 99, "bag_answers_per_prompt": 1,
                                                # Long enough that some of the answers end.
                                                "max_new_tokens": 24}),
}  # fmt: skip
MODEL = smallest_model(max_length=128)


@functools.cache
def parameters(name):
    init = init_scalar_model if name in ("helpfulness", "safety") else init_language_model
    return init(MODEL, jax.random.key(sum(map(ord, name))))


@pytest.fixture
def stage(monkeypatch):
    """Runs a stage with models of random weights, and, if asked to, ends it before a call of generation."""

    def load_model(folder, mesh, head):
        return types.SimpleNamespace(params=parameters(folder.name))

    def load_reward_models(inputs, runtime, reward):
        return RewardModels(MODEL, parameters("helpfulness"), parameters("safety"), reward)

    monkeypatch.setattr(rejection_sampling, "finetune", lambda config, start, dialogues, bos, runtime, weights: {})
    for module in (sampling, context_distillation):
        monkeypatch.setattr(module, "load_model", load_model)
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())
    for module in (evaluate, rejection_sampling):
        monkeypatch.setattr(module, "load_reward_models", load_reward_models)
    generate, answer_turn = sampling.generate, turns.answer_turn

    def run(name, folder, rows, ends_before=None):
        module, changes = STAGES[name]
        calls = []

        def counted(function):
            def call(*arguments, **options):
                calls.append(function)
                if len(calls) == ends_before:
                    raise Cut
                return function(*arguments, **options)

            return call

        monkeypatch.setattr(sampling, "generate", counted(generate))
        monkeypatch.setattr(turns, "answer_turn", counted(answer_turn))
        folder.mkdir(exist_ok=True)
        runtime = smallest_runtime(folder, model=dataclasses.replace(MODEL, generation_rows=rows))
        inputs = {role: folder / role for role in ("tokenizer", "policy", "safety", "newest", "earlier", "start")}
        inputs["models"] = folder / "first", folder / "second"
        config = ConfigDict({"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 6, **changes})
        return module.run(config, inputs, runtime), len(calls)

    return run


def files(folder):
    """What a stage wrote, but for its shards."""
    return {
        path.name: [json.loads(line) for line in path.read_text().splitlines()]
        if path.suffix == ".jsonl"
        else json.loads(path.read_text())
        for path in sorted(folder.iterdir())
        if path.suffix in (".json", ".jsonl")
    }


def assert_same(one, other):
    """Numbers are the same but for the order of float32 sums: scores are made of other batches."""
    if isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-5)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_was_cut_off_ends_like_one_that_was_not(name, stage, tmp_path, monkeypatch):
    results, _ = stage(name, tmp_path / "whole", rows=16)
    monkeypatch.setattr(resumable, "BATCHES_PER_SHARD", 1)
    cut = tmp_path / "cut"
    for ends_before in (2, 3):
        with pytest.raises(Cut):
            stage(name, cut, rows=2, ends_before=ends_before)
    resumed, calls_resumed = stage(name, cut, rows=4)
    assert_same(json.loads(json.dumps(resumed)), json.loads(json.dumps(results)))
    assert_same(files(cut), files(tmp_path / "whole"))
    assert files(cut), "the stage writes something"
    # Nothing that was made before the cuts is made again: whole, in shards of 4, it would take more calls.
    assert calls_resumed < stage(name, tmp_path / "in shards", rows=4)[1]
