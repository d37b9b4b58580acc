"""Packing loses, splits and mixes up no sequence."""

import numpy as np
import pytest

from llama2_jax.text.packing import assign_rows, fill_rows, pack


def sequences(sizes, seed=0):
    draw = np.random.default_rng(seed)
    return [
        {
            "tokens": draw.integers(0, 1000, size).astype(np.int32),
            "loss_mask": draw.integers(0, 2, size).astype(np.int32),
            "weight": draw.random(size).astype(np.float32),
        }
        for size in sizes
    ]


@pytest.mark.parametrize("seed", range(20))
def test_every_sequence_is_complete_at_its_reported_place(seed):
    draw = np.random.default_rng(seed)
    length = int(draw.integers(4, 60))
    given = sequences(draw.integers(1, length + 1, draw.integers(1, 80)), seed)
    packed = pack(given, length)
    for name in ("tokens", "loss_mask", "weight"):
        for sequence, found in zip(given, packed.unpack(packed.arrays[name]), strict=True):
            np.testing.assert_array_equal(found, sequence[name])
    assert packed.rows % 8 == 0
    assert all(array.shape == (packed.rows, length) for array in packed.arrays.values())


@pytest.mark.parametrize("seed", range(20))
def test_segments_and_positions_separate_the_sequences(seed):
    """Against a loop over every row: each run of one segment id is one sequence, positions count up in it."""
    draw = np.random.default_rng(seed)
    given = sequences(draw.integers(1, 31, 40), seed)
    packed = pack(given, 30)
    segment_ids, positions, tokens = (packed.arrays[name] for name in ("segment_ids", "positions", "tokens"))
    found = []
    for row in range(packed.rows):
        numbers = [number for number in dict.fromkeys(segment_ids[row].tolist()) if number]
        assert numbers == list(range(1, len(numbers) + 1))
        for number in numbers:
            columns = np.flatnonzero(segment_ids[row] == number)
            np.testing.assert_array_equal(columns, np.arange(columns[0], columns[-1] + 1))
            np.testing.assert_array_equal(positions[row, columns], np.arange(len(columns)))
            found.append(tuple(tokens[row, columns].tolist()))
        padding = segment_ids[row] == 0
        assert not positions[row, padding].any() and not tokens[row, padding].any()
    assert sorted(found) == sorted(tuple(sequence["tokens"].tolist()) for sequence in given)


def test_the_last_token_is_at_its_reported_place():
    given = sequences([3, 7, 1, 10, 5])
    packed = pack(given, 10)
    last = packed.arrays["tokens"][packed.row, packed.start + packed.size - 1]
    assert last.tolist() == [sequence["tokens"][-1] for sequence in given]


def test_few_gaps_are_left():
    sizes = np.random.default_rng(0).integers(5, 120, 2000)
    packed = pack(sequences(sizes), 256, row_multiple=1)
    # Best fit, longest first, of many small sequences: within 2% of the fewest possible rows.
    assert packed.rows <= np.ceil(sizes.sum() / 256) * 1.02


def test_the_same_input_is_packed_the_same_way():
    given = sequences([5, 5, 5, 9, 2, 2, 7] * 10)
    one, two = pack(given, 16), pack(given, 16)
    np.testing.assert_array_equal(one.row, two.row)
    np.testing.assert_array_equal(one.start, two.start)


def test_rows_in_the_order_given_when_they_are_assigned():
    row, start, rows = assign_rows(np.asarray([4, 7, 3, 3, 6]), 10)
    # 4 opens row 0; 7 opens row 1; 3 fills row 1; 3 goes to row 0 (room 6); 6 opens row 2.
    assert (row.tolist(), start.tolist(), rows) == ([0, 1, 1, 0, 2], [0, 0, 7, 4, 0], 3)


def test_no_row_is_overfull():
    size = np.random.default_rng(0).integers(1, 50, 500)
    row, start, rows = assign_rows(size, 50)
    occupied = np.zeros((rows, 50), int)
    for one_row, one_start, one_size in zip(row, start, size, strict=True):
        occupied[one_row, one_start : one_start + one_size] += 1
    assert occupied.max() == 1 and occupied.sum() == size.sum()


def test_numbers_become_32_bits():
    arrays = pack([{"tokens": [1, 2], "weight": [0.5, 1.5], "mask": np.asarray([True, False])}], 4).arrays
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "tokens": "int32", "weight": "float32", "mask": "bool", "segment_ids": "int32", "positions": "int32",
    }  # fmt: skip


def test_the_number_of_rows_is_a_multiple():
    packed = pack(sequences([4, 4]), 8, row_multiple=5)
    assert packed.rows == 5 and packed.arrays["segment_ids"][1:].sum() == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no sequences"),
        ([{"tokens": [1]}, {"tokens": [1] * 9}], "sequence 1 has 9 tokens; a row has room for 1 to 8"),
        ([{"tokens": [1]}, {"tokens": []}], "sequence 1 has 0 tokens"),
        ([{"tokens": [1, 2], "mask": [1]}], "unequal lengths"),
        ([{"tokens": [1]}, {"tokens": [1], "mask": [1]}], "sequence 1 has the fields"),
        ([{"tokens": [1], "positions": [0]}], "packing itself adds segment_ids and positions"),
    ],
)
def test_invalid_sequences_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        pack(given, 8)


def test_filling_given_rows_equals_packing():
    given = sequences([3, 7, 1, 10, 5])
    packed = pack(given, 10)
    again = fill_rows(given, packed.row, packed.start, packed.rows, 10)
    assert all((again[name] == array).all() for name, array in packed.arrays.items())
