"""DPO: the step's numbers, what the stage learns and reports, and that a kill changes no bit."""

import functools
import itertools
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.data.preferences import Comparison, preference_batches
from llama2_jax.models.llama import LanguageModel
from llama2_jax.pipeline import encoding, resumable
from llama2_jax.pipeline.stage_files import write_jsonl
from llama2_jax.stages import dpo
from llama2_jax.training import loop
from llama2_jax.training.metrics import read_metrics
from llama2_jax.training.model_folder import load_model
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from tests.random_model import as_tree, random_arrays, train_like
from tests.smallest import Letters, smallest_model, smallest_runtime

BETA = 0.2
MODEL = smallest_model()


def pairs(count=16, seed=0):
    """Comparisons whose answers follow prompts of their own, the two of a pair of different lengths."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        prompt = rng.integers(3, 128, rng.integers(1, 9))
        answers = [rng.integers(3, 128, size) for size in rng.integers(1, 12, 2)]
        chosen, rejected = (np.concatenate([prompt, answer]).astype(np.int32) for answer in answers)
        made.append(Comparison(chosen, rejected, "better", 0.0, None, tuple(map(len, answers))))
    return made


def random_params(seed):
    return jax.tree.map(jax.numpy.asarray, as_tree(random_arrays(MODEL, seed=seed)))


@jax.jit
def logits_of(params, tokens):
    """The logits of one sequence in a row of its own, padded."""
    segments = (tokens >= 0).astype(np.int32)
    positions = jax.numpy.arange(32)[None]
    return LanguageModel(MODEL).apply({"params": params}, jax.numpy.maximum(tokens, 0), positions, segments)


@functools.cache
def slow_log_probability(seed, ids, size):
    """The answer's log-probability, from the logits of its sequence alone, in float64."""
    tokens = np.pad(np.asarray([ids], np.int32), ((0, 0), (0, 32 - len(ids))), constant_values=-1)
    logits = np.asarray(logits_of(random_params(seed), tokens)[0], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return sum(log_p[place - 1, ids[place]] for place in range(len(ids) - size, len(ids)))


def slow_sums(seed, comparisons):
    return [
        np.asarray([
            slow_log_probability(seed, tuple(getattr(one, side).tolist()), one.answer_sizes[place])
            for one in comparisons
        ])
        for place, side in enumerate(("chosen", "rejected"))
    ]  # fmt: skip


@pytest.mark.slow
def test_log_probabilities_are_sums_over_the_answers_tokens_alone():
    found = dpo.pair_log_probabilities(MODEL, random_params(0), pairs())
    # Float32 sums of some dozens of terms, packed into other rows.
    np.testing.assert_allclose(found.chosen, slow_sums(0, pairs())[0], rtol=1e-5)
    np.testing.assert_allclose(found.rejected, slow_sums(0, pairs())[1], rtol=1e-5)


def one_step(comparisons, accumulation=1, smoothing=0.0):
    """The parameters and the metrics after a step on one batch of all comparisons; the reference has other weights."""
    runtime, optimizer = smallest_runtime("."), OptimizerConfig(clip=1e9)
    reference = slow_sums(1, comparisons)
    sizes = np.asarray([one.answer_sizes for one in comparisons], np.int32).T
    labels = dict(zip(dpo.LABELS, (*np.asarray(reference, np.float32), *sizes), strict=True))
    batches = preference_batches(comparisons, len(comparisons), 32, 0, accumulation=accumulation, labels=labels)
    batch = {name: array for name, array in next(iter(batches)).items() if name != "ids"}
    params = jax.device_put(random_params(0), jax.NamedSharding(runtime.mesh, jax.P()))
    step = dpo.dpo_step(MODEL, optimizer, dpo.Objective(BETA, smoothing), accumulation, runtime.mesh)
    state, metrics = step(create_state(params, make_optimizer(optimizer)), batch, np.float32(1e-3))
    return jax.device_get(state.params), {name: float(value) for name, value in metrics.items()}


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_pairs_scored_one_by_one(smoothing):
    policy, reference = slow_sums(0, pairs()), slow_sums(1, pairs())
    chosen, rejected = (BETA * (one - other) for one, other in zip(policy, reference, strict=True))
    probability = 1 / (1 + np.exp(rejected - chosen))
    wanted = -(1 - smoothing) * np.log(probability) - smoothing * np.log(1 - probability)
    _, metrics = one_step(pairs(), smoothing=smoothing)
    # Float32 scores, packed into other rows, against float64 arithmetic on them.
    assert metrics["loss"] == pytest.approx(wanted.mean(), rel=1e-4)
    assert metrics["margin"] == pytest.approx((chosen - rejected).mean(), rel=1e-4)
    assert metrics["accuracy"] == pytest.approx((chosen > rejected).mean(), rel=1e-5)
    assert metrics["chosen_log_ratio"] == pytest.approx(chosen.mean() / BETA, rel=1e-4)


@pytest.mark.slow
def test_two_microbatches_are_the_whole_batch():
    whole, metrics = one_step(pairs())
    halves, halved = one_step(pairs(), accumulation=2)
    # The same sums in float32 in another order; Adam's first step magnifies a difference of gradients near 0.
    for name in metrics:
        assert halved[name] == pytest.approx(metrics[name], rel=1e-4), name
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-5), halves, whole)


def comparison(index, domain):
    """The preferred answer is of low letters, the other one of high ones; the prompts differ."""
    rng = np.random.default_rng(index)
    chosen, rejected = rng.integers(97, 104, 4).tolist(), rng.integers(110, 120, 5).tolist()
    rating = ("significantly_better", "slightly_better")[index % 2]
    return {
        "messages": [{"role": "user", "content": f"{index}"}], "domain": domain, "rating": rating,
        "chosen": "", "rejected": "", "chosen_tokens": [*chosen, 2], "rejected_tokens": [*rejected, 2],
    }  # fmt: skip


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Runs the stage in a folder, on 40 comparisons of two rounds; 12 are held out."""
    for number, first in enumerate((0, 20)):
        rows = [comparison(first + index, ("helpfulness", "safety")[index % 2]) for index in range(20)]
        write_jsonl(tmp_path / f"round_{number}" / "comparisons.jsonl", rows)
        held_out = [comparison(100 + first + index, ("helpfulness", "safety")[index % 2]) for index in range(6)]
        write_jsonl(tmp_path / f"round_{number}" / "comparisons_test.jsonl", held_out)
    train_like(tmp_path / "policy", MODEL, random_arrays(MODEL))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())
    # Several shards: three and one of them.
    monkeypatch.setattr(resumable, "shard_size", lambda runtime: 12)

    def run(name, **changes):
        runtime = smallest_runtime(tmp_path / name)
        inputs = {
            "tokenizer": runtime.folder, "policy": runtime.folder.parent / "policy",
            "annotations": (runtime.folder.parent / "round_0", runtime.folder.parent / "round_1"),
        }  # fmt: skip
        config = ConfigDict({
            "preferences": {}, "test_preferences": {}, "beta": BETA, "label_smoothing": 0.0, "pairs_per_batch": 8,
            "length": 64, "epochs": 2, "accumulation": 1, "too_long": "raise", "held_out_batches": 1,
            "evaluate_every": 4, "save_every": 3, "log_every": 1, "learning_rate": 1e-3, "warmup_steps": 0,
            "warmup_fraction": 0.0, "final_learning_rate_fraction": 1.0,
            "optimizer": {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0}, **changes,
        })  # fmt: skip
        results = dpo.run(config, inputs, runtime)
        return results, read_metrics(runtime.folder / "metrics.jsonl"), load_model(runtime.folder).params

    run.folder = tmp_path
    return run


@pytest.mark.slow
def test_a_policy_learns_to_prefer_what_was_chosen(train):
    results, rows, params = train("learning", epochs=6)
    steps = [row for row in rows if "loss" in row]
    assert len(steps) == 6 * 5
    # The reference's numbers are float32 sums, packed into other rows.
    assert steps[0]["loss"] == pytest.approx(np.log(2), abs=1e-4) and abs(steps[0]["margin"]) < 1e-4
    assert np.mean([row["loss"] for row in steps[-5:]]) < 0.3
    held_out = [row for row in rows if "held_out_loss" in row]
    assert [row["step"] for row in held_out] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert held_out[-1]["held_out_accuracy"] > 0.85 and held_out[-1]["held_out_loss"] < held_out[0]["held_out_loss"]
    assert results["comparisons"] == {"helpfulness": 20, "safety": 20}
    for domain in ("helpfulness", "safety"):
        assert results["pairs"][domain] == {
            "significantly_better": 6 if domain == "helpfulness" else 0, "better": 0,
            "slightly_better": 0 if domain == "helpfulness" else 6, "negligibly_better": 0, "all": 6,
        }  # fmt: skip
        assert results["accuracy"][domain]["all"] > 0.8
        assert results["accuracy"][domain]["all"] == pytest.approx(results["held_out"][domain]["accuracy"])
    # Measured here again from the two models: the final policy, and where it started.
    records = [comparison(100 + first + index, "") for first in (0, 20) for index in range(0, 6, 2)]
    encoded = dpo.encode_comparisons(
        Letters(), records, margins=dpo.MARGINS["none"], length=64, too_long="raise", source="test"
    ).comparisons
    before = load_model(train.folder / "policy").params
    ours, theirs = (dpo.pair_log_probabilities(MODEL, one, encoded) for one in (params, before))
    drift = float(np.mean(ours.chosen - theirs.chosen))
    assert results["held_out"]["helpfulness"]["chosen_log_ratio"] == pytest.approx(drift, rel=1e-4)


@pytest.mark.slow
def test_adapters_alone_learn_it_too(train):
    adapters = {"rank": 4, "alpha": 8.0, "targets": ("query", "value", "down"), "dropout": 0.0}
    before = load_model(train.folder / "policy").params
    results, rows, params = train("adapted", epochs=6, adapters=adapters, learning_rate=1e-2)
    steps = [row for row in rows if "loss" in row]
    assert steps[0]["loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert np.mean([row["loss"] for row in steps[-5:]]) < 0.3
    assert results["trained_parameters"] < results["parameters"] / 4
    # Merged as they are loaded: what has no adapter is the policy's own, to the bit.
    for name, one in params["trunk"]["layers"].items():
        same = np.array_equal(one, before["trunk"]["layers"][name])
        assert same != (name in adapters["targets"]), name


class CutOff(BaseException):
    """Stands for a kill: no code of the package catches it."""


# Where a stage is killed, in which call of what: within the scores of the reference and of held-out answers, before a
# checkpoint, and behind two of them.
KILLS = (
    (resumable, "write_jsonl", 2),
    (resumable, "write_jsonl", 5),
    (loop, "_next_batch", 3),
    (loop, "_next_batch", 8),
)


@pytest.mark.slow
def test_a_stage_that_was_cut_off_ends_with_the_same_bits(train, monkeypatch):
    wanted_results, wanted_rows, wanted = train("whole")
    for owner, name, call in KILLS:
        kill = f"{name}_{call}"
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, cut_off_in(getattr(owner, name), call))
            with pytest.raises(CutOff):
                train(kill)
        results, rows, params = train(kill)
        assert json.dumps(results) == json.dumps(wanted_results), kill
        assert [without_speed(row) for row in rows] == [without_speed(row) for row in wanted_rows], kill
        jax.tree.map(np.testing.assert_array_equal, params, wanted)


def cut_off_in(function, call):
    """The function, which is killed in its call of that number."""
    calls = itertools.count(1)

    def cut(*arguments):
        if next(calls) == call:
            raise CutOff
        return function(*arguments)

    return cut


def without_speed(row):
    return {name: value for name, value in row.items() if name != "tokens_per_second"}


@pytest.mark.slow
def test_without_held_out_comparisons_nothing_is_measured_on_them(train):
    for number in (0, 1):
        (train.folder / f"round_{number}" / "comparisons_test.jsonl").write_text("")
    results, rows, _ = train("alone", epochs=1)
    assert results["accuracy"] == results["held_out"] == {}
    assert not [name for row in rows for name in row if name.startswith("held_out")]


@pytest.mark.slow
def test_comparisons_of_held_out_prompts_are_left_out(train):
    write_jsonl(train.folder / "round_1" / "comparisons_test.jsonl", [comparison(3, "safety")])
    results, _, _ = train("less", epochs=1)
    assert results["left_out"]["test_prompts"] == 1 and sum(results["comparisons"].values()) == 39


def test_a_warm_up_longer_than_the_training_is_refused():
    config = ConfigDict({
        "preferences": {"people": 1}, "pairs_per_batch": 8, "epochs": 1, "accumulation": 1, "warmup_steps": 150,
        "optimizer": {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0},
    })  # fmt: skip
    with pytest.raises(ValueError, match="warmup_steps=150 in a run of at most 13 steps"):
        dpo.check(config, {"annotations": ()}, lambda sources: 100)
    config.warmup_steps = 5
    dpo.check(config, {"annotations": ()}, lambda sources: 100)
