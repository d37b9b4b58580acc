"""A reward model on rankings: its step against plain NumPy, its training, and its bias."""

import itertools
import json
import math

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.data.answer_batches import ComparedAnswers
from llama2_jax.data.rankings import better_and_worse, ranking_batches
from llama2_jax.inference.score import rewards
from llama2_jax.models.llama import init_scalar_model
from llama2_jax.pipeline import encoding
from llama2_jax.pipeline.comparisons import abstract_pairs
from llama2_jax.pipeline.reward_models import load_reward_models, single_reward
from llama2_jax.pipeline.stage_files import write_jsonl
from llama2_jax.stages import ranked_reward_model
from llama2_jax.stages.ranked_reward_model import ranked_reward_model_step
from llama2_jax.training import loop
from llama2_jax.training.metrics import read_metrics
from llama2_jax.training.model_folder import load_model
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from tests.random_model import random_arrays, train_like
from tests.smallest import Letters, smallest_model, smallest_runtime

MODEL = smallest_model()
OPTIMIZER = {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0}


def rankings(seed=0):
    """A prompt each of 4, 2, 7 and 5 answers, some of them tied."""
    rng, made = np.random.default_rng(seed), []
    for ranks in ([1, 2, 3, 4], [2, 1], [3, 1, 2, 1, 4, 4, 5], [1, 2, 2, 3, 1]):
        answers = [rng.integers(3, 128, rng.integers(4, 20)).astype(np.int32) for _ in ranks]
        made.append(ComparedAnswers(answers, better_and_worse(answers, ranks)))
    return made


def one_step(made, accumulation=1, rate=1e-3):
    runtime, optimizer = smallest_runtime("."), OptimizerConfig()
    batches = iter(ranking_batches(made, len(made), 32, seed=0, accumulation=accumulation))
    batch = {name: array for name, array in next(batches).items() if name != "ids"}
    params = init_scalar_model(MODEL, jax.random.key(0))
    state = create_state(jax.device_put(params, jax.NamedSharding(runtime.mesh, jax.P())), make_optimizer(optimizer))
    state, metrics = ranked_reward_model_step(MODEL, optimizer, accumulation, runtime.mesh)(
        state, batch, np.float32(rate)
    )
    return jax.device_get(state.params), {name: float(value) for name, value in metrics.items()}


@pytest.mark.slow
def test_the_loss_is_that_of_each_prompt_by_itself():
    """The mean over prompts of -1 / C(K, 2) times the sum over pairs, scored one by one; ties count in K alone."""
    start, losses, right = init_scalar_model(MODEL, jax.random.key(0)), [], []
    for ranking in rankings():
        scores = [float(rewards(MODEL, start, [ids])[0]) for ids in ranking.answers]
        differences = np.asarray([scores[better] - scores[worse] for better, worse in ranking.pairs])
        losses.append(np.log1p(np.exp(-differences)).sum() / math.comb(len(scores), 2))
        right += (differences > 0).tolist()
    assert [len(one.pairs) for one in rankings()] == [6, 1, 21 - 2, 10 - 2]
    _, metrics = one_step(rankings())
    # float32 scores, packed into other rows, against float64 arithmetic on them.
    assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(np.mean(right), rel=1e-6)


@pytest.mark.slow
def test_two_microbatches_are_the_whole_batch():
    whole, metrics = one_step(rankings())
    halves, halved = one_step(rankings(), accumulation=2)
    # The same sums in float32 in another order; Adam's first step magnifies a difference of gradients near 0.
    for name in metrics:
        assert halved[name] == pytest.approx(metrics[name], rel=1e-4), name
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-5), halves, whole)


def ranking(index):
    """Answers of letters between a and o: the earlier their letters, the better; two are tied."""
    rng = np.random.default_rng(index)
    ids = [[*rng.integers(97 + 4 * place, 100 + 4 * place, 4).tolist(), 2] for place in (2, 0, 1, 3, 3)]
    return {
        "messages": [{"role": "user", "content": f"{index}"}], "domain": ("helpfulness", "safety")[index % 2],
        "answers": [Letters().decode(one) for one in ids], "answers_tokens": ids, "ranks": [3, 1, 2, 4, 4],
    }  # fmt: skip


def comparison(index):
    row = ranking(100 + index)
    ids = dict(zip(("chosen_tokens", "rejected_tokens"), row["answers_tokens"][1::2], strict=False))
    return {**row, **ids, "chosen": "", "rejected": "", "rating": "better"}


def demonstrations(*, seed):
    del seed
    return [
        {
            "messages": [
                {"role": "user", "content": f"{index}"},
                {"role": "assistant", "content": "abc" * (index % 5 + 1)},
            ]
        }
        for index in range(30)
    ]


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Runs the stage in a folder, on 24 rankings; 6 comparisons of each domain are held out."""
    (tmp_path / "rankings").mkdir()
    (tmp_path / "round").mkdir()
    write_jsonl(tmp_path / "rankings" / "rankings.jsonl", [ranking(index) for index in range(24)])
    write_jsonl(tmp_path / "round" / "comparisons_test.jsonl", [comparison(index) for index in range(12)])
    train_like(tmp_path / "sft", MODEL, random_arrays(MODEL))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())

    def run(name, **changes):
        runtime = smallest_runtime(tmp_path / name)
        inputs = {
            "tokenizer": tmp_path, "start": runtime.folder.parent / "sft",
            "rankings": (runtime.folder.parent / "rankings",), "annotations": (runtime.folder.parent / "round",),
        }  # fmt: skip
        made = {"made": {"function": f"{__name__}.demonstrations", "format": "dialogues", "arguments": {}}}
        config = ConfigDict({
            "rankings": {}, "test_preferences": {}, "prompts_per_batch": 4, "most_answers": 5, "length": 64,
            "epochs": 4, "accumulation": 1, "too_long": "raise", "save_every": 3, "log_every": 1,
            "demonstrations": made, "offset_demonstrations": 20, "learning_rate": 1e-2, "warmup_steps": 0,
            "warmup_fraction": 0.0, "final_learning_rate_fraction": 0.1, "optimizer": OPTIMIZER, **changes,
        })  # fmt: skip
        run.config, run.inputs, run.runtime = config, inputs, runtime
        results = ranked_reward_model.run(config, inputs, runtime)
        return results, read_metrics(runtime.folder / "metrics.jsonl"), load_model(runtime.folder).params

    run.folder = tmp_path
    return run


@pytest.mark.slow
def test_it_learns_the_order_of_answers_and_is_tested_on_comparisons(train):
    results, rows, _ = train("learning")
    assert len(rows) == 4 * 6 and rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert (results["rankings"], results["answers"], results["comparisons"]) == (24, 120, 24 * 9)
    assert results["pairs"]["helpfulness"]["all"] == results["pairs"]["safety"]["all"] == 6
    assert min(results["accuracy"][domain]["all"] for domain in ("helpfulness", "safety")) > 0.8
    assert results["left_out"] == {"test_prompts": 0, "all_tied": 0}


@pytest.mark.slow
def test_demonstrations_score_zero_on_average_wherever_the_model_is_loaded(train):
    results, _, params = train("biased")
    assert results["demonstrations"] == 20 and abs(results["offset"]) > 1e-3
    folder = train.runtime.folder
    assert json.loads((folder / "offset.json").read_text()) == {"offset": results["offset"]}
    models = load_reward_models({"helpfulness": folder, "safety": folder}, train.runtime, single_reward)
    assert models.safety is models.helpfulness, "one model is on the devices once"
    drawn = ranked_reward_model._demonstrations(train.config, Letters(), train.runtime)
    scores = models.score([{"tokens": ids.tolist()} for ids in drawn])
    # Float32 scores of about unit size.
    assert abs(scores.logit.mean()) < 1e-5
    np.testing.assert_allclose(scores.logit + results["offset"], rewards(MODEL, params, drawn), atol=1e-6)
    np.testing.assert_array_equal(scores.helpfulness, scores.safety)


@pytest.mark.slow
def test_a_stage_that_was_cut_off_ends_with_the_same_bits(train, monkeypatch):
    wanted_results, _, wanted = train("whole")
    honest, calls = loop._next_batch, itertools.count(1)

    class CutOff(BaseException):
        pass

    def cut(*arguments):
        if next(calls) == 8:
            raise CutOff
        return honest(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_next_batch", cut)
        with pytest.raises(CutOff):
            train("cut")
    results, _, params = train("cut")
    assert json.dumps(results) == json.dumps(wanted_results)
    jax.tree.map(np.testing.assert_array_equal, params, wanted)


@pytest.mark.slow
def test_adapters_alone_learn_it_too(train):
    adapters = {"rank": 4, "alpha": 8.0, "targets": ("query", "value", "down"), "dropout": 0.0}
    results, rows, _ = train("adapted", adapters=adapters)
    assert results["trained_parameters"] < results["parameters"] and rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.slow
def test_rankings_of_held_out_prompts_are_left_out(train):
    write_jsonl(train.folder / "round" / "comparisons_test.jsonl", [{**comparison(0), **_prompt_of(3)}])
    results, *_ = train("less", epochs=1)
    assert results["left_out"]["test_prompts"] == 1 and results["rankings"] == 23


def _prompt_of(index):
    return {"messages": ranking(index)["messages"]}


@pytest.mark.slow
def test_more_answers_than_were_sized_are_refused(train):
    with pytest.raises(ValueError, match="the_stage: a ranking has 5 answers; raise most_answers=4"):
        train("many", most_answers=4)


def test_a_warm_up_longer_than_the_training_is_refused():
    config = ConfigDict({
        "rankings": {}, "prompts_per_batch": 4, "epochs": 1, "accumulation": 1, "warmup_steps": 10,
        "optimizer": OPTIMIZER,
    })  # fmt: skip
    ranked = ConfigDict({"prompts": {"a": 1}, "judged_answers": 100, "answers_per_prompt": (4, 9)})
    counts = {"a": 1000}
    with pytest.raises(ValueError, match="warmup_steps=10 in a run of at most 7 steps"):
        ranked_reward_model.check(config, {"rankings": (ranked,)}, lambda sources: sum(counts[one] for one in sources))
    config.warmup_steps = 5
    ranked_reward_model.check(config, {"rankings": (ranked,)}, lambda sources: sum(counts[one] for one in sources))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_pairs_have_the_shapes_that_were_said_before(accumulation):
    config = ConfigDict({"length": 32, "accumulation": accumulation})
    mesh, made = smallest_runtime(".").mesh, rankings()
    batch = next(iter(ranking_batches(made, 4, 32, 0, accumulation=accumulation, row_multiple=2)))
    rows = batch["tokens"].shape[-2]
    labels = dict.fromkeys(ranked_reward_model.RANKING_LABELS, np.float32)
    # As many pairs as there would be if all prompts had those of the one with most.
    said = abstract_pairs(config, rows, labels, mesh, 4 // accumulation * 19)
    assert {name: (one.shape, one.dtype) for name, one in said.items()} == {
        name: (array.shape, array.dtype) for name, array in batch.items() if name != "ids"
    }
