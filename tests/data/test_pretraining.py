"""Pretraining batches: every token of every document, in the given proportions; iterators resume anywhere."""

import itertools
import json

import numpy as np
import pytest

from llama2_jax.data.pretraining import pretraining_batches

BOS, EOS = 1, 2


def documents(count, first=1000, low=5, high=30, seed=0):
    """Documents whose tokens identify them: document n repeats the id first + n."""
    sizes = np.random.default_rng(seed).integers(low, high, count)
    return [np.full(size, first + number, np.int32) for number, size in enumerate(sizes)]


def batches(sources, weights, length=32, batch_size=4, seed=0):
    return pretraining_batches(sources, weights, length, batch_size, seed, bos_id=BOS, eos_id=EOS)


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def stream(made):
    """The tokens of batches in order, row by row."""
    return np.concatenate([batch["tokens"].ravel() for batch in made])


def equal(one, two):
    return all((a[name] == b[name]).all() for a, b in zip(one, two, strict=True) for name in a)


def test_documents_follow_each_other_complete_between_bos_and_eos():
    given = documents(30)
    tokens = stream(take(iter(batches({"a": given}, {"a": 1.0})), 20))
    text = " ".join(map(str, tokens))
    found = [one.split() for one in text.split("1 ", 1)[1].split(" 1 ")][:-1]
    sizes = {str(1000 + number): len(document) for number, document in enumerate(given)}
    assert len(found) > 60
    for ids in found:
        assert ids[-1] == str(EOS)
        assert ids[:-1] == [ids[0]] * sizes[ids[0]]


def test_each_pass_has_every_document_once_in_a_new_order():
    tokens = stream(take(iter(batches({"a": documents(30)}, {"a": 1.0})), 20))
    order = tokens[np.flatnonzero(tokens == BOS)[:-1] + 1]
    first, second = order[:30].tolist(), order[30:60].tolist()
    assert sorted(first) == sorted(second) == list(range(1000, 1030))
    assert first != second and first != sorted(first)


def test_segments_positions_and_mask():
    """Against a loop: a new segment begins at BOS and at the beginning of a row, and positions restart there."""
    for batch in take(iter(batches({"a": documents(30)}, {"a": 1.0})), 5):
        for tokens, segment_ids, positions in zip(
            batch["tokens"], batch["segment_ids"], batch["positions"], strict=True
        ):
            segment, position = 0, 0
            for column, token in enumerate(tokens):
                new = column == 0 or token == BOS
                segment, position = segment + new, 0 if new else position + 1
                assert (segment_ids[column], positions[column]) == (segment, position)
        assert batch["loss_mask"].all()
        assert all(array.dtype == np.int32 and array.shape == (4, 32) for array in batch.values())


def test_a_long_document_is_shuffled_in_full_rows_and_loses_nothing():
    """Pieces as long as a row fill a row each: the model sees its full context, and no book fills a batch."""
    books = [np.arange(first, first + 1000, dtype=np.int32) for first in (1000, 3000)]
    rows = np.concatenate([batch["tokens"] for batch in take(iter(batches({"a": books}, {"a": 1.0})), 40)])
    full = np.asarray([row for row in rows if (np.diff(row[1:]) == 1).all()])
    # A book with BOS and EOS has 1002 tokens: 31 rows, the first with BOS, and a rest of 10 tokens with EOS.
    assert len(full) >= len(rows) * 62 / 64
    first_pass = full[:62]
    assert len(np.unique(first_pass)) == 62 * 32 - 1  # each piece once; BOS, which both books have, counts once
    assert (np.diff(first_pass[:, 1]) < 0).sum() > 15
    rest = np.concatenate([row for row in rows if not (np.diff(row[1:]) == 1).all()])
    assert set(rest.tolist()) == {EOS, *range(1991, 2000), *range(3991, 4000)}


@pytest.mark.parametrize("size", [30, 62, 126])
def test_documents_that_fill_rows_exactly_leave_no_rest(size):
    given = {"a": [np.full(size, 1000 + number, np.int32) for number in range(9)]}
    rows = np.concatenate([batch["tokens"] for batch in take(iter(batches(given, {"a": 1.0})), 9)])
    a_pass = rows[: 9 * (size + 2) // 32]
    assert [np.sum(a_pass == 1000 + number) for number in range(9)] == [size] * 9


def test_weights_are_fractions_of_the_tokens():
    """Also if the documents of one source are ten times as long: the smaller source is up-sampled."""
    sources = {"short": documents(50, 1000, 8, 12), "long": documents(500, 5000, 80, 120)}
    tokens = stream(take(iter(batches(sources, {"short": 3.0, "long": 1.0}, length=64, batch_size=8)), 40))
    share = np.mean(tokens[tokens > EOS] < 5000)
    # BOS and EOS, a sixth of a short document, count in the weights but not here: 0.75 * 10/12 = 0.625 of 0.87 is 0.72.
    assert share == pytest.approx(0.72, abs=0.02)


@pytest.mark.parametrize("taken", [0, 1, 2, 7, 23])
def test_a_restored_iterator_continues_identically(taken):
    def make():
        sources = {"a": documents(40, 1000), "b": documents(20, 5000, 30, 90)}
        return iter(batches(sources, {"a": 1.0, "b": 2.0}))

    whole = make()
    take(whole, taken)
    state = json.loads(json.dumps(whole.get_state()))
    restored = make()
    restored.set_state(state)
    assert equal(take(restored, 10), take(whole, 10))


def test_every_state_survives_json():
    """JSON changes the state of Grain's packer if a document ends exactly at the end of a row."""
    given = {"a": [np.full(size, 9, np.int32) for size in (14, 14, 30, 3, 25, 12, 60, 6)]}
    whole = iter(batches(given, {"a": 1.0}, length=16, batch_size=1))
    for _ in range(60):
        restored = iter(batches(given, {"a": 1.0}, length=16, batch_size=1))
        restored.set_state(json.loads(json.dumps(whole.get_state())))
        assert equal([next(restored)], [next(whole)])


def test_an_iterator_can_be_set_back():
    iterator = iter(batches({"a": documents(30)}, {"a": 1.0}))
    take(iterator, 3)
    state = iterator.get_state()
    later = take(iterator, 4)
    iterator.set_state(state)
    assert equal(take(iterator, 4), later)


def test_the_seed_determines_the_order():
    def first(seed):
        return take(iter(batches({"a": documents(30)}, {"a": 1.0}, seed=seed)), 3)

    assert equal(first(1), first(1))
    assert not equal(first(1), first(2))


@pytest.mark.parametrize(
    ("sources", "weights", "arguments", "message"),
    [
        ({}, {}, {}, "wanted the same names"),
        ({"a": documents(2)}, {"b": 1.0}, {}, "wanted the same names"),
        ({"a": documents(2)}, {"a": 0.0}, {}, "weights must be above 0"),
        ({"a": []}, {"a": 1.0}, {}, "'a' cannot be trained on: it has no documents"),
        ({"a": [[3], []]}, {"a": 1.0}, {}, "document 1 is empty"),
        ({"a": documents(2)}, {"a": 1.0}, {"batch_size": 0}, "batch_size=0: wanted at least 1"),
    ],
)
def test_invalid_arguments_raise(sources, weights, arguments, message):
    with pytest.raises(ValueError, match=message):
        batches(sources, weights, **arguments)
