"""Rankings become pairs, and all pairs of a prompt are in one batch, in which each answer is once."""

import itertools
import math

import numpy as np
import pytest

from llama2_jax.data.answer_batches import ComparedAnswers
from llama2_jax.data.rankings import better_and_worse, encode_rankings, ranking_batches
from tests.smallest import Letters

USER = [{"role": "user", "content": "q"}]


def record(answers, ranks, **fields):
    return {"messages": USER, "answers": list(answers), "ranks": list(ranks), **fields}


def encode(records, length=64, too_long="raise"):
    return encode_rankings(Letters(), records, length=length, too_long=too_long, source="mine")


def test_every_two_answers_of_other_ranks_are_a_pair():
    (ranking,) = encode([record("abcd", [2, 1, 4, 3])]).rankings
    assert len(ranking.answers) == 4
    found = {tuple(pair) for pair in ranking.pairs.tolist()}
    assert found == {(1, 0), (1, 3), (1, 2), (0, 3), (0, 2), (3, 2)}


def test_ties_and_equal_answers_are_no_pairs():
    assert better_and_worse([np.asarray([one]) for one in range(3)], [1, 1, 2]).tolist() == [[0, 2], [1, 2]]
    same = [np.asarray([5, 2]), np.asarray([5, 2]), np.asarray([6, 2])]
    assert better_and_worse(same, [1, 2, 3]).tolist() == [[0, 2], [1, 2]]
    encoded = encode([record(["a", " a"], [1, 2]), record("ab", [1, 2])])
    assert (encoded.kept, encoded.all_tied) == ([1], 1), "texts that differ in the white space around them"


def test_sampled_ids_are_used_as_they_are():
    (ranking,) = encode([record("ab", [2, 1], answers_tokens=[[100, 2], [101, 102]])]).rankings
    assert [ids[-2:].tolist() for ids in ranking.answers] == [[100, 2], [101, 102]]
    assert ranking.answers[0][:-2].tolist() == ranking.answers[1][:-2].tolist(), "the same prompt"


def test_long_rankings_are_refused_dropped_or_truncated_together():
    long = [{"role": "user", "content": "x" * 40}]
    records = [record("ab", [1, 2]), {**record(["a", "bbbbbbbb"], [1, 2]), "messages": long}]
    with pytest.raises(ValueError, match=r"source 'mine', ranking 1: \d+ tokens do not fit the length 40"):
        encode(records, 40)
    dropped = encode(records, 40, "drop")
    assert (dropped.kept, dropped.too_long) == ([0], 1)
    truncated = encode(records, 40, "truncate_left")
    assert truncated.kept == [0, 1] and truncated.too_long == 1
    short, longest = (len(ids) for ids in truncated.rankings[1].answers)
    assert longest == 40 and longest - short == 7, "both lost as much, so that they keep the same prompt"
    with pytest.raises(ValueError, match="too_long='cut': choose one of"):
        encode(records, 40, "cut")


def rankings(count=11, seed=0):
    """Of 4 to 9 answers of 2 to 12 ids each, a few of them tied; no two answers are the same."""
    rng, made = np.random.default_rng(seed), []
    for index in range(count):
        answers = [
            np.asarray([1, index + 3, *rng.integers(3, 128, rng.integers(1, 11)), number + 3], np.int32)
            for number in range(4 + index % 6)
        ]
        made.append(ComparedAnswers(answers, better_and_worse(answers, rng.integers(1, 6, len(answers)).tolist())))
    return [one for one in made if len(one.pairs)]


def pairs_in(batch):
    """The two sequences that each real pair of a batch names, with its labels."""
    sequences = []
    for side in ("chosen", "rejected"):
        for row, column in zip(batch[f"{side}_row"], batch[f"{side}_column"], strict=True):
            start = column - batch["positions"][row, column]
            sequences.append(tuple(batch["tokens"][row, start : column + 1].tolist()))
    half = len(sequences) // 2
    real = batch["pair_mask"] > 0
    found = zip(sequences[:half], sequences[half:], batch["pair_weight"], batch["prompt_share"], strict=True)
    return list(itertools.compress(found, real))


@pytest.mark.parametrize("length", [16, 64], ids=["a few answers a row", "many"])
def test_all_pairs_of_a_prompt_are_in_one_batch_with_their_weight(length):
    made = rankings()
    batches = list(ranking_batches(made, 4, length, seed=1))
    assert len(batches) == math.ceil(len(made) / 4)
    seen = []
    for batch in batches:
        inside = [int(index) for index in batch["ids"]]
        seen += inside
        wanted = {
            (tuple(made[index].answers[better].tolist()), tuple(made[index].answers[worse].tolist())): index
            for index in inside
            for better, worse in made[index].pairs
        }
        found = pairs_in(batch)
        assert len(found) == len(wanted) and {pair[:2] for pair in found} == wanted.keys()
        for better, worse, weight, share in found:
            ranking = made[wanted[better, worse]]
            assert weight == pytest.approx(1 / math.comb(len(ranking.answers), 2))
            assert share == pytest.approx(1 / len(ranking.pairs))
        assert batch["prompt_share"].sum() == pytest.approx(len(inside))
        # Each answer is there once.
        segments = sum(int(row.max()) for row in batch["segment_ids"])
        assert segments == sum(len(made[index].answers) for index in inside)
        padding = batch["pair_mask"] == 0
        assert not batch["pair_weight"][padding].any() and not batch["prompt_share"][padding].any()
    assert sorted(seen) == list(range(len(made)))


def test_microbatches_hold_whole_prompts():
    made = rankings()
    whole, (stacked, *_) = next(iter(ranking_batches(made, 4, 64, 1))), ranking_batches(made, 4, 64, 1, accumulation=2)
    assert stacked["ids"] == whole["ids"] and stacked["tokens"].ndim == 3
    parts = [{name: array[part] for name, array in stacked.items() if name != "ids"} for part in range(2)]
    assert sorted(pair for part in parts for pair in pairs_in(part)) == sorted(pairs_in(whole))
    assert [part["prompt_share"].sum() for part in parts] == pytest.approx([2, 2])


def test_the_position_is_saved_and_epochs_differ():
    made = rankings()
    batches = iter(ranking_batches(made, 4, 64, 1, epochs=2))
    first = [next(batches)["ids"] for _ in range(3)]
    state = batches.get_state()
    rest = [batch["ids"] for batch in batches]
    again = iter(ranking_batches(made, 4, 64, 1, epochs=2))
    again.set_state(state)
    assert [batch["ids"] for batch in again] == rest and first != rest[:3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts_per_batch": 3, "accumulation": 2}, "prompts_per_batch=3 cannot be divided into accumulation=2"),
        ({"prompts_per_batch": 4, "length": 8}, r"ranking \d+ has \d+ tokens; a row has room for 1 to 8"),
    ],
)
def test_what_makes_no_batches_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ranking_batches(rankings(), **{"length": 64, "seed": 0, **options})


def test_no_rankings():
    with pytest.raises(ValueError, match="there are no rankings to train on"):
        ranking_batches([], 4, 64, 0)
