"""Fine-tuning batches: each dialogue is complete and occurs once an epoch; iterators resume anywhere."""

import itertools
import json

import numpy as np
import pytest

from llama2_jax.data.dialogues import dialogue_batches, fit_to_length, split_dialogue, truncate_left
from llama2_jax.data.epochs import steps_in
from llama2_jax.text.chat_formats import LLAMA2, VICUNA
from llama2_jax.text.dialogue import EncodedDialogue, encode_dialogue
from tests.smallest import Letters

BOS = 1


def dialogues(count, first=1000, seed=0, high=40):
    """Dialogues whose tokens identify them, with a random mask."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        size = draw.integers(3, high)
        tokens = np.concatenate([[BOS], np.full(size - 1, first + number)]).astype(np.int32)
        made.append(EncodedDialogue(tokens, draw.integers(0, 2, size).astype(np.int32)))
    return made


def segments(batch):
    """The (tokens, mask) of a batch's segments, after checking that positions count up."""
    found = []
    for row in range(len(batch["tokens"])):
        for number in range(1, batch["segment_ids"][row].max(initial=0) + 1):
            inside = batch["segment_ids"][row] == number
            assert batch["positions"][row][inside].tolist() == list(range(inside.sum()))
            found.append(
                (tuple(batch["tokens"][row][inside].tolist()), tuple(batch["loss_mask"][row][inside].tolist()))
            )
    return found


def as_pairs(encoded):
    return [(tuple(one.tokens.tolist()), tuple(one.loss_mask.tolist())) for one in encoded]


SOURCES = {"a": dialogues(50, 1000, 1), "b": dialogues(21, 5000, 2)}


def test_each_epoch_has_every_dialogue_once_with_its_mask():
    batches = dialogue_batches(SOURCES, 48, 4, epochs=3, seed=0)
    made = list(batches)
    assert len(made) == steps_in(batches) == sum(batches.steps_per_epoch)
    orders = []
    for steps in batches.steps_per_epoch:
        epoch, made = made[:steps], made[steps:]
        found = [pair for batch in epoch for pair in segments(batch)]
        assert sorted(found) == sorted(as_pairs(SOURCES["a"] + SOURCES["b"]))
        orders.append(found)
    assert orders[0] != orders[1] != orders[2]


def test_all_batches_have_one_shape_and_the_last_is_filled_up_with_padding():
    made = list(dialogue_batches({"a": dialogues(10)}, 48, 4, epochs=1, seed=0))
    names = ("tokens", "segment_ids", "positions", "loss_mask")
    assert all(batch[name].shape == (4, 48) and batch[name].dtype == np.int32 for batch in made for name in names)
    empty = made[-1]["segment_ids"].max(axis=1) == 0
    assert empty.any()
    assert not any(made[-1][name][empty].any() for name in names)


def test_a_batch_names_its_dialogues():
    for batch in dialogue_batches(SOURCES, 48, 4, epochs=1, seed=0):
        named = [(source, int(number)) for source, _, number in (name.partition("/") for name in batch["ids"])]
        assert as_pairs(SOURCES[source][number] for source, number in named) == segments(batch)


def test_rows_are_well_filled():
    made = list(dialogue_batches({"a": dialogues(2000)}, 128, 8, epochs=1, seed=0))
    # Best fit in random order of sequences up to a third of a row: the gaps are a few percent.
    assert np.mean([batch["segment_ids"] > 0 for batch in made[:-1]]) > 0.97


def test_what_fits_a_short_row_stands_in_batches_of_short_rows_and_in_gaps():
    given = dialogues(300, high=36)
    batches = dialogue_batches({"a": given}, 48, 4, epochs=2, seed=0, short_length=24)
    made = list(batches)
    assert {batch["tokens"].shape for batch in made} == {(4, 48), (8, 24)}
    epoch = made[: batches.steps_per_epoch[0]]
    found = [segments(batch) for batch in epoch]
    assert sorted(pair for batch in found for pair in batch) == sorted(as_pairs(given))
    long = [batch["tokens"].shape == (4, 48) for batch in epoch]
    # The kinds are mixed, and no row of the context was made for what fits a short one.
    assert long != sorted(long) and long != sorted(long, reverse=True)
    rows = [row for batch, is_long in zip(epoch, long, strict=True) if is_long for row in batch["segment_ids"]]
    assert all(np.bincount(row)[1:].max() > 24 for row in rows if row.any())
    assert any(np.bincount(row)[1:].min() <= 24 for row in rows if row.any())


def test_dialogues_that_are_all_short_leave_no_row_of_the_whole_context():
    made = list(dialogue_batches(SOURCES, 96, 4, epochs=1, seed=0, short_length=48))
    assert {batch["tokens"].shape for batch in made} == {(8, 48)}
    same = list(dialogue_batches(SOURCES, 48, 8, epochs=1, seed=0))
    assert [batch["ids"] for batch in made] == [batch["ids"] for batch in same]


@pytest.mark.parametrize("taken", [0, 1, 5, 11, 12])
def test_a_restored_iterator_continues_identically(taken):
    """Within the first epoch, at its end and within the second."""
    whole = iter(dialogue_batches(SOURCES, 48, 4, epochs=2, seed=0))
    for _ in range(taken):
        next(whole)
    state = json.loads(json.dumps(whole.get_state()))
    restored = iter(dialogue_batches(SOURCES, 48, 4, epochs=2, seed=0))
    restored.set_state(state)
    left, again = list(whole), list(restored)
    assert len(left) == len(again) > 0
    for batch, same in zip(left, again, strict=True):
        assert batch["ids"] == same["ids"]
        assert all((batch[name] == same[name]).all() for name in batch if name != "ids")


def test_the_seed_determines_the_order():
    def order(seed):
        return [batch["ids"] for batch in dialogue_batches(SOURCES, 48, 4, epochs=1, seed=seed)]

    assert order(1) == order(1) != order(2)


def test_weights_determine_how_often_a_source_is_seen():
    batches = dialogue_batches(SOURCES, 48, 4, epochs=2, seed=0, weights={"a": 0.5, "b": 2.0})
    made = list(batches)
    epochs = made[: batches.steps_per_epoch[0]], made[batches.steps_per_epoch[0] :]
    halves = []
    for epoch in epochs:
        ids = [name for batch in epoch for name in batch["ids"]]
        assert sorted(name for name in ids if name[0] == "b") == sorted([f"b/{n}" for n in range(21)] * 2)
        halves.append({name for name in ids if name[0] == "a"})
        assert len(halves[-1]) == 25
    assert halves[0] != halves[1]


@pytest.mark.parametrize(
    ("sources", "arguments", "message"),
    [
        ({"a": dialogues(3), "b": [EncodedDialogue(np.ones(49, np.int32), np.ones(49, np.int32))]}, {}, "b/0 has 49"),
        ({"a": []}, {}, "there are no dialogues"),
        ({"a": dialogues(3)}, {"weights": {"c": 1.0}}, "weights are given for"),
        ({"a": dialogues(3)}, {"weights": {"a": -1.0}}, "wanted 0 or more"),
        ({"a": dialogues(3)}, {"batch_size": 0}, "batch_size=0: wanted at least 1"),
        ({"a": dialogues(3)}, {"short_length": 49}, "short_length=49: wanted 1 to length=48"),
    ],
)
def test_invalid_arguments_raise(sources, arguments, message):
    with pytest.raises(ValueError, match=message):
        dialogue_batches(sources, **{"length": 48, "batch_size": 4, "epochs": 1, "seed": 0, **arguments})


def dialogue(*pairs):
    tokens = [token for pair in pairs for token in (BOS, *pair)]
    starts = tuple(int(place) for place in np.cumsum([0, *(1 + len(pair) for pair in pairs)])[:-1])
    mask = np.asarray([int(token > 50) for token in tokens], np.int32)
    return EncodedDialogue(np.asarray(tokens, np.int32), mask, starts)


def test_too_long_dialogues_are_refused_dropped_or_truncated(caplog):
    given = [dialogue([10, 60]), dialogue([10, 60], [20, 70, 71])]
    with pytest.raises(ValueError, match=r"source 'web', dialogue 1: 7 tokens do not fit the length 5; 1 of 2"):
        fit_to_length(given, 5, "raise", "web", BOS)
    with caplog.at_level("WARNING"):
        assert fit_to_length(given, 5, "drop", "web", BOS) == ([given[0]], 1)
    assert "web: 1 of 2 dialogues are longer than 5: drop" in caplog.text
    kept, cut = fit_to_length(given, 5, "truncate_left", "web", BOS)
    assert cut == 1 and as_pairs(kept) == as_pairs([given[0], dialogue([20, 70, 71])])
    assert fit_to_length(given, 7, "raise", "web", BOS)[1] == 0
    with pytest.raises(ValueError, match="too_long='cut'"):
        fit_to_length(given, 5, "cut", "web", BOS)


def test_trimmed_dialogues_keep_their_first_tokens():
    given = [dialogue([10, 60]), dialogue([10, 60], [20, 70, 71])]
    kept, cut = fit_to_length(given, 5, "truncate_right", "web", BOS)
    assert cut == 1 and kept[0] is not given[1]
    assert kept[1].tokens.tolist() == given[1].tokens[:5].tolist() and len(kept[1].loss_mask) == 5
    assert kept[1].starts == (0, 3) and fit_to_length(given, 3, "truncate_right", "web", BOS)[0][1].starts == (0,)


def conversation(*sizes, system=""):
    told = [{"role": "system", "content": system}] if system else []
    pairs = [
        [{"role": "user", "content": f"{n}" * size}, {"role": "assistant", "content": f"{n}" * size}]
        for n, size in enumerate(sizes)
    ]
    return [*told, *(message for pair in pairs for message in pair)]


@pytest.mark.parametrize("chat_format", [LLAMA2, VICUNA], ids=lambda one: one.name)
@pytest.mark.parametrize("system", ["", "Be kind."])
def test_long_conversations_are_split_before_turns_of_the_user(chat_format, system, monkeypatch):
    monkeypatch.setattr(Letters, "chat_format", chat_format)
    messages = conversation(5, 9, 3, 80, 1, 2, system=system)
    first = 1 if system else 0
    # All but the pair of 160 letters fit, which does not by itself.
    length = len(encode_dialogue(Letters(), [*messages[:first], *messages[first + 6 : first + 8]])) - 1
    parts = split_dialogue(Letters(), messages, length)
    assert [message for part in parts for message in part[first:]] == messages[first:]
    for part in parts:
        assert part[:first] == messages[:first] and [one["role"] for one in part[first:]][::2] == ["user"] * (
            (len(part) - first) // 2
        )
    sizes = [len(encode_dialogue(Letters(), part)) for part in parts]
    assert sum(size > length for size in sizes) == 1 and len(parts) > 2
    # As long as they can be: the next pair would not fit.
    for part, following in itertools.pairwise(parts):
        longer = [*part, *following[first : first + 2]]
        assert len(encode_dialogue(Letters(), longer)) > length


def test_what_fits_is_not_split():
    messages = conversation(5, 9)
    assert split_dialogue(Letters(), messages, len(encode_dialogue(Letters(), messages))) == [messages]


def test_truncation_keeps_bos_and_the_newest_tokens():
    full = dialogue([10, 11, 12, 60, 61])
    cut = truncate_left(full, 4, BOS)
    assert (cut.tokens.tolist(), cut.loss_mask.tolist()) == ([BOS, 12, 60, 61], [0, 0, 1, 1])
    assert full.tokens.tolist() == [BOS, 10, 11, 12, 60, 61]
    assert truncate_left(full, 6, BOS) is full


def test_truncation_drops_whole_pairs_also_where_an_answer_has_a_bos():
    """A model may sample any id: the second pair's answer has two BOS in it."""
    pairs = [10, 60], [11, BOS, 61, BOS, 62], [12, 63]
    full = dialogue(*pairs)
    assert full.starts == (0, 3, 9)
    for length in range(9, 12):
        cut = truncate_left(full, length, BOS)
        assert (as_pairs([cut]), cut.starts) == (as_pairs([dialogue(*pairs[1:])]), (0, 6))
    for length in range(3, 9):
        cut = truncate_left(full, length, BOS)
        assert (as_pairs([cut]), cut.starts) == (as_pairs([dialogue(pairs[2])]), (0,))


def test_a_pair_that_is_cut_keeps_its_newest_tokens_whatever_they_are():
    cut = truncate_left(dialogue([10, 60, BOS, 61, 62]), 5, BOS)
    assert (cut.tokens.tolist(), cut.loss_mask.tolist(), cut.starts) == ([BOS, 60, BOS, 61, 62], [0, 1, 0, 1, 1], (0,))
