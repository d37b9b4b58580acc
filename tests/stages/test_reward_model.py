"""The reward models' data mixes, their step and their test."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.data.preferences import Comparison, EncodedComparisons, preference_batches
from llama2_jax.models.llama import init_scalar_model
from llama2_jax.pipeline import held_out_scores
from llama2_jax.pipeline.held_out_scores import held_out_accuracy, score_comparisons
from llama2_jax.pipeline.stage_files import write_jsonl
from llama2_jax.stages import reward_model
from llama2_jax.stages.reward_model import reward_model_step, training_records
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from tests.smallest import Letters, smallest_model, smallest_runtime


def comparisons(*, seed, domain, count, source="", prompt=""):
    del seed
    return [
        {
            "messages": [{"role": "user", "content": f"{prompt} {index}" if prompt else "hello"}],
            "chosen": f"good {index}",
            "rejected": f"bad {index}",
            "domain": domain,
            "from": source,
        }
        for index in range(count)
    ]


def made(**arguments):
    return {"function": f"{__name__}.comparisons", "format": "preferences", "arguments": arguments}


@pytest.fixture
def mixed(tmp_path):
    """The training records of a kind: 60 helpfulness and 40 safety comparisons of two rounds, and open data."""
    runtime = smallest_runtime(tmp_path)
    folders = tuple(runtime.folder / name for name in ("round_1", "round_2"))
    for folder in folders:
        folder.mkdir()
        rows = [*comparisons(seed=0, domain="helpfulness", count=30), *comparisons(seed=0, domain="safety", count=20)]
        write_jsonl(folder / "comparisons.jsonl", [{**row, "from": folder.name} for row in rows])

    def records(kind, other_fraction, open_count=100, test=(), **changes):
        open_data = {
            domain: made(domain=domain, count=open_count, source="open") for domain in ("helpfulness", "safety")
        }
        config = ConfigDict({
            "kind": kind, "other_fraction": other_fraction,
            "preferences": {}, "open_preferences": open_data if open_count else {}, **changes,
        })  # fmt: skip
        return training_records(config, {"annotations": folders}, runtime, {"helpfulness": [], "safety": test})

    return records


DEFAULT_MIXES = (("helpfulness", 0.5), ("safety", 0.1))


def of(records, **fields):
    return [record for record in records if all(record[name] == value for name, value in fields.items())]


def test_helpfulness_is_half_its_own_comparisons_of_every_round_and_half_others(mixed):
    records = mixed("helpfulness", 0.5).records
    own = [record for record in of(records, domain="helpfulness") if record["from"] != "open"]
    assert len(own) == 60 and {record["from"] for record in own} == {"round_1", "round_2"}
    assert len(records) == 120
    others = [record for record in records if record not in own]
    # Drawn from 40 of the rounds and 200 open ones alike.
    assert {record["from"] for record in others} == {"round_1", "round_2", "open"}
    assert {record["domain"] for record in others} == {"helpfulness", "safety"}


def test_safety_is_nine_tenths_safety_comparisons_and_a_tenth_helpfulness(mixed):
    records = mixed("safety", 0.1).records
    assert len(of(records, domain="safety")) == 40 + 100
    # A tenth of the whole: 140 / 9, rounded.
    assert len(of(records, domain="helpfulness")) == 16


def test_the_general_model_takes_all_that_it_is_given(mixed):
    """Whatever their domain, and without a mix: its part of the config has no `other_fraction`."""
    records = mixed("general", None).records
    assert [len(of(records, **{"from": name})) for name in ("round_1", "round_2", "open")] == [50, 50, 200]


def test_comparisons_from_files_count_as_the_model_s_own(mixed):
    files = {"human": made(domain="helpfulness", count=50, source="file")}
    records = mixed("helpfulness", 0.5, preferences=files).records
    assert len(of(records, **{"from": "file"})) == 50
    assert len(records) == 2 * (60 + 50)


def test_no_comparison_is_drawn_twice(mixed):
    records = mixed("helpfulness", 0.5, open_count=0).records
    # Of the others there are only 40: all are taken, once.
    assert len(of(records, domain="safety")) == 40
    assert len({(record["from"], record["domain"], record["chosen"]) for record in records}) == 100


def test_comparisons_of_prompts_that_are_tested_on_are_left_out_and_counted(mixed):
    """Whatever their domain and wherever they come from; the mix is made of what is left."""
    files = {"human": made(domain="helpfulness", count=50, source="file", prompt="asked")}
    test = comparisons(seed=0, domain="safety", count=20, prompt="asked")
    records, left_out = mixed("helpfulness", 0.5, preferences=files, test=test)
    assert left_out == 20 and len(of(records, **{"from": "file"})) == 30
    assert not {row["messages"][0]["content"] for row in test} & {row["messages"][0]["content"] for row in records}
    assert len(records) == 2 * (60 + 30)
    open_files = {"open": made(domain="safety", count=50, source="open", prompt="asked")}
    records, left_out = mixed("safety", 0.1, open_preferences=open_files, test=test)
    assert left_out == 20 and len(of(records, **{"from": "open"})) == 30


def test_a_part_of_the_prompts_is_the_same_for_all_sources_and_both_models(mixed):
    files = {"human": made(domain="helpfulness", count=100, source="file", prompt="asked")}
    open_files = {"open": made(domain="safety", count=100, source="open", prompt="asked")}
    changes = {"prompt_fraction": 0.5, "preferences": files, "open_preferences": open_files}
    helpfulness, safety = (mixed(kind, fraction, **changes).records for kind, fraction in DEFAULT_MIXES)
    own, opened = of(helpfulness, **{"from": "file"}), of(safety, **{"from": "open"})
    assert {row["messages"][0]["content"] for row in own} == {row["messages"][0]["content"] for row in opened}
    assert 30 <= len(own) == len(opened) <= 70
    # The rounds' comparisons are all of one prompt here: they are in or out together.
    assert len(of(helpfulness, domain="helpfulness")) - len(own) in (0, 60)


@pytest.fixture
def tested(tmp_path, monkeypatch):
    """The results of a stage on given comparisons; a sequence is scored by how few sequences came before it."""
    runtime = smallest_runtime(tmp_path)
    (tmp_path / "round_1").mkdir()
    monkeypatch.setattr(reward_model, "load_tokenizer", lambda inputs: Letters())
    monkeypatch.setattr(reward_model, "_fit", lambda config, start, comparisons, runtime: {})
    monkeypatch.setattr(
        held_out_scores,
        "rewards",
        lambda model, params, sequences: np.arange(len(sequences))[::-1] - len(sequences) / 2,
    )

    def run(training, test, kind="helpfulness", **changes):
        write_jsonl(runtime.folder / "round_1" / "comparisons.jsonl", training)
        write_jsonl(runtime.folder / "round_1" / "comparisons_test.jsonl", test)
        config = ConfigDict({
            "kind": kind, "round": 1, "other_fraction": 0.0, "margin": "none", "length": 64, "too_long": "raise",
            "preferences": {}, "open_preferences": {}, "test_preferences": {},
            "safety_threshold": 0.15, "unsafe_precision": 0.89, **changes,
        })  # fmt: skip
        return reward_model.run(config, {"annotations": (runtime.folder / "round_1",), "start": tmp_path}, runtime)

    return run


def test_the_stage_counts_what_it_leaves_out(tested):
    rows = comparisons(seed=0, domain="helpfulness", count=6, prompt="asked")
    rows[5]["rejected"] = f"{rows[5]['chosen']} \n"
    rows[1]["rejected"] = f" {rows[1]['chosen']}"
    files = {"human": made(domain="helpfulness", count=1, prompt="asked")}
    results = tested(rows[2:], rows[:2], preferences=files)
    # Of four comparisons and one from a file, that one's prompt is tested on, and one has the same answer twice.
    assert results["comparisons"] == {"helpfulness": 3, "safety": 0}
    assert results["left_out"] == {"test_prompts": 1, "same_tokens": 1, "same_tokens_in_test": 1}
    assert (results["pairs"]["helpfulness"]["all"], results["accuracy"]["helpfulness"]["all"]) == (1, 1.0)
    assert results["too_long"] == 0 and "safety" not in results["pairs"]


def test_a_safety_model_is_tested_on_labelled_answers(tested):
    """The scores of two pairs' chosen and rejected answers are 1, 0, -1, -2; their sigmoids 0.73, 0.5, 0.27, 0.12."""
    training = comparisons(seed=0, domain="safety", count=4)
    test = comparisons(seed=0, domain="safety", count=2, prompt="asked")
    unlabelled = tested(training, test, kind="safety")
    assert unlabelled["tests"]["safety"]["unsafe"] is None
    assert unlabelled["notes"] == ["safety: none of 2 test comparisons has an answer labelled unsafe"]
    test = [{**row, "safety_label": "chosen_safe"} for row in test]
    results = tested(training, test, kind="safety")
    found = results["tests"]["safety"]["unsafe"]
    assert results["notes"] == [] and (found["answers"], found["unsafe"]) == (4, 2)
    assert (found["configured"]["precision"], found["configured"]["recall"]) == (1.0, 0.5)
    # Halfway to the score of the second chosen answer both rejected ones are below it.
    assert (
        found["recalibrated"]["threshold"] == pytest.approx((0.2689 + 0.5) / 2, abs=1e-4)
        and found["recalibrated"]["recall"] == 1.0
    )
    assert "unsafe" not in tested(training, test)["tests"]["safety"], "a helpfulness model"


def test_what_the_test_of_a_safety_model_needs_is_missed_before_it_trains():
    config = ConfigDict({"kind": "safety", "unsafe_precision": 0.89})
    with pytest.raises(ValueError, match="is tested with safety_threshold: give"):
        reward_model.check(config, {"annotations": ()}, lambda sources: 0)


def test_lengths_are_those_of_the_answers_alone(tested):
    training, test = (comparisons(seed=0, domain="helpfulness", count=3, prompt=prompt) for prompt in ("a", "b"))
    lengths = tested(training, test)["tests"]["helpfulness"]["lengths"]
    # "good" is longer than "bad", and preferred by all.
    assert (lengths["pairs"], lengths["longer_chosen"], lengths["longer_scored_higher"]) == (3, 1.0, 1.0)
    records = [{**row, "chosen_tokens": [70] * 9, "rejected_tokens": [71] * 20} for row in test]
    lengths = tested(training, records)["tests"]["helpfulness"]["lengths"]
    assert lengths["longer_chosen"] == 0.0, "the ids that were sampled count, not the text"


def pairs(count=16, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Comparison(
            chosen=rng.integers(3, 128, rng.integers(4, 20)).astype(np.int32),
            rejected=rng.integers(3, 128, rng.integers(4, 20)).astype(np.int32),
            rating="better",
            margin=float(index % 3) / 3,
            safe=None if index % 4 == 0 else (True, index % 4 == 1),
            answer_sizes=(2, 2),
        )
        for index in range(count)
    ]


def run_step(comparisons, weight=0.0, accumulation=1, rate=1e-3, repeat=1):
    """The parameters and the metrics after steps on one batch of all comparisons."""
    runtime, optimizer = smallest_runtime("."), OptimizerConfig()
    batches = iter(preference_batches(comparisons, len(comparisons), 32, seed=0, accumulation=accumulation))
    batch = {name: array for name, array in next(batches).items() if name != "ids"}
    params = init_scalar_model(runtime.model, jax.random.key(0))
    state = create_state(jax.device_put(params, jax.NamedSharding(runtime.mesh, jax.P())), make_optimizer(optimizer))
    step = reward_model_step(runtime.model, optimizer, weight, accumulation, runtime.mesh)
    history = []
    for _ in range(repeat):
        state, metrics = step(state, batch, np.float32(rate))
        history.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(state.params), history


def scores_of(params, comparisons):
    return [
        np.asarray(
            held_out_scores.rewards(smallest_model(), params, [getattr(one, side) for one in comparisons]), np.float64
        )
        for side in ("chosen", "rejected")
    ]


def slow_losses(params, comparisons):
    """The ranking loss and the auxiliary loss of equations 1 and 2, answer by answer."""
    chosen, rejected = scores_of(params, comparisons)
    margins = np.asarray([one.margin for one in comparisons])
    ranking = np.mean(-np.log(1 / (1 + np.exp(-(chosen - rejected - margins)))))
    labels = [
        -np.log(probability if safe else 1 - probability)
        for c, r, one in zip(chosen, rejected, comparisons, strict=True)
        if one.safe is not None
        for probability, safe in zip((1 / (1 + np.exp(-c)), 1 / (1 + np.exp(-r))), one.safe, strict=True)
    ]
    return ranking, np.mean(labels)


@pytest.mark.slow
def test_the_loss_is_that_of_pairs_scored_one_by_one():
    start = init_scalar_model(smallest_model(), jax.random.key(0))
    ranking, auxiliary = slow_losses(start, pairs())
    _, (metrics,) = run_step(pairs(), weight=1.0)
    # float32 scores, packed into other rows, against float64 arithmetic on them.
    assert metrics["ranking_loss"] == pytest.approx(ranking, rel=1e-5)
    assert metrics["safety_loss"] == pytest.approx(auxiliary, rel=1e-5)
    assert metrics["loss"] == pytest.approx(ranking + auxiliary, rel=1e-5)


@pytest.mark.slow
def test_two_microbatches_are_the_whole_batch():
    """Safety labels and lengths are spread unevenly: a mean of the microbatches' means would be another number."""
    whole, (metrics,) = run_step(pairs(), weight=1.0)
    halves, (halved,) = run_step(pairs(), weight=1.0, accumulation=2)
    # The same sums in float32 in another order; Adam's first step magnifies a difference of gradients near 0.
    for name in metrics:
        assert halved[name] == pytest.approx(metrics[name], rel=1e-4), name
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-5), halves, whole)


@pytest.mark.slow
def test_the_auxiliary_loss_teaches_to_tell_safe_answers_from_unsafe_ones():
    """Both answers of a pair are safe, or neither: the ranking loss alone can not tell the pairs apart."""
    same = [
        Comparison(one.chosen, one.rejected, one.rating, 0.0, (index % 2 == 0,) * 2, one.answer_sizes)
        for index, one in enumerate(pairs(16))
    ]
    safe = np.arange(16) % 2 == 0
    gaps = {}
    for weight in (0.0, 1.0):
        params, history = run_step(same, weight, rate=1e-2, repeat=30)
        scores = np.mean(scores_of(params, same), axis=0)
        gaps[weight] = scores[safe].mean() - scores[~safe].mean()
        assert history[-1]["ranking_loss"] < history[0]["ranking_loss"]
    assert gaps[1.0] > gaps[0.0] + 1
    assert set(history[0]) - {"safety_loss"} == {"loss", "ranking_loss", "accuracy", "grad_norm", "learning_rate"}


def test_held_out_accuracy_is_by_rating(monkeypatch):
    one = Comparison(np.asarray([1]), np.asarray([2]), "better", 0.0, None, (1, 1))
    other = Comparison(np.asarray([3]), np.asarray([4]), "slightly_better", 0.0, None, (1, 1))
    score = {1: 1.0, 2: 0.0, 3: 0.0, 4: 1.0}
    monkeypatch.setattr(
        held_out_scores,
        "rewards",
        lambda model, params, sequences: np.asarray([score[int(ids[0])] for ids in sequences]),
    )
    records = [{"chosen": "a", "rejected": "b", "rating": comparison.rating} for comparison in (one, other, one)]
    encoded = EncodedComparisons([one, other, one], [0, 1, 2], 0, 0)
    table = held_out_accuracy(score_comparisons(smallest_model(), {}, Letters(), records, encoded))
    assert {name: row["accuracy"] for name, row in table.items()} == {
        "significantly_better": None, "better": 1.0, "slightly_better": 0.0, "negligibly_better": None, "all": 2 / 3,
    }  # fmt: skip
    assert table["better"]["pairs"] == 2
