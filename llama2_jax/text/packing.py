"""Packing of token sequences into rows, for fine-tuning, scoring, reward models and PPO."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class Packed:
    """Sequences packed into rows.

    Attributes:
      arrays: the sequences' fields, each [rows, length] with zeros at padding, and two arrays that packing adds:
        `segment_ids` int32 [rows, length] (0 = padding, 1, 2, .. = the row's sequences in order) and
        `positions` int32 [rows, length] (0, 1, .. within each sequence).
      row: int32 [n], the row of each sequence, in the order in which they were given.
      start: int32 [n], the column of its first token.
      size: int32 [n], its number of tokens; its last token is at column start + size - 1.
    """

    arrays: dict[str, np.ndarray]
    row: Int[np.ndarray, " n"]
    start: Int[np.ndarray, " n"]
    size: Int[np.ndarray, " n"]

    @property
    def rows(self) -> int:
        return len(self.arrays["segment_ids"])

    @property
    def length(self) -> int:
        """Tokens a row."""
        return self.arrays["segment_ids"].shape[1]

    def unpack(self, array: np.ndarray) -> list[np.ndarray]:
        """Returns each sequence's part of an array [rows, length, ...], in the order given."""
        array = np.asarray(array)
        return [
            array[row, start : start + size] for row, start, size in zip(self.row, self.start, self.size, strict=True)
        ]


def pack(sequences: Sequence[Mapping[str, np.ndarray]], length: int, row_multiple: int = 8) -> Packed:
    """Packs sequences into rows, longest first, each into the fullest row that has room; no sequence is ever split.

    Longest first leaves few gaps; equal lengths keep their order, so the result depends only on the input.

    Args:
      sequences: the fields of each, 1-D arrays of one length (such as `tokens`, `loss_mask`); all have the same fields.
      length: tokens a row.
      row_multiple: the number of rows is rounded up to a multiple of it, so that few program shapes occur.

    Returns:
      The packed arrays and the place of each sequence. Rows after the last sequence are padding (segment 0).

    Raises:
      ValueError: if there are no sequences, or one is empty, longer than `length`, has fields of unequal lengths or
        other fields than the first one.
    """
    fields, size = _join_fields(sequences, length)
    order = np.argsort(-size, kind="stable")
    row, start = np.empty_like(size), np.empty_like(size)
    row[order], start[order], needed = assign_rows(size[order], length)
    rows = -(-needed // row_multiple) * row_multiple
    return Packed(_fill(fields, size, row, start, rows, length), row, start, size)


def fill_rows(
    sequences: Sequence[Mapping[str, np.ndarray]],
    row: Int[np.ndarray, " n"],
    start: Int[np.ndarray, " n"],
    rows: int,
    length: int,
) -> dict[str, np.ndarray]:
    """Returns the arrays of `Packed` for sequences with known rows and first columns (from `assign_rows`).

    Raises:
      ValueError: as `pack`, if a sequence is empty, too long or has wrong fields.
    """
    fields, size = _join_fields(sequences, length)
    return _fill(fields, size, row, start, rows, length)


def _join_fields(
    sequences: Sequence[Mapping[str, np.ndarray]], length: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Checks the sequences; returns the fields of all of them concatenated, and the size of each."""
    if not sequences:
        raise ValueError("there are no sequences to pack")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in sequences[0]}
    reserved = {"segment_ids", "positions"} & columns.keys()
    if reserved or not columns:
        raise ValueError(f"sequences have the fields {sorted(columns)}: packing itself adds segment_ids and positions")
    size = np.empty(len(sequences), np.int32)
    for index, sequence in enumerate(sequences):
        if sequence.keys() != columns.keys():
            raise ValueError(f"sequence {index} has the fields {sorted(sequence)}, the first one {sorted(columns)}")
        lengths = {name: len(values) for name, values in sequence.items()}
        size[index] = next(iter(lengths.values()))
        if len(set(lengths.values())) > 1:
            raise ValueError(f"sequence {index} has fields of unequal lengths: {lengths}")
        if not 0 < size[index] <= length:
            raise ValueError(
                f"sequence {index} has {size[index]} tokens; a row has room for 1 to {length}: raise the length, or "
                "truncate or drop the sequence before packing"
            )
        for name, values in sequence.items():
            columns[name].append(np.asarray(values))
    return {name: _as_32_bit(np.concatenate(values)) for name, values in columns.items()}, size


def _as_32_bit(values: np.ndarray) -> np.ndarray:
    """Returns 64-bit numbers, such as those made of Python's, as the 32-bit ones of devices."""
    narrow = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}
    return values.astype(narrow.get(values.dtype, values.dtype))


def assign_rows(size: Int[np.ndarray, " n"], length: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], int]:
    """Assigns sequences to rows in the order given: to the fullest row that still has room, else to a new one.

    Args:
      size: the number of tokens of each sequence, 1 to length.
      length: tokens a row.

    Returns:
      The row and start (first column) of each sequence, and the number of rows.
    """
    row, start = np.empty(len(size), np.int32), np.empty(len(size), np.int32)
    # Rows by the room left in them, so that a look-up costs the same for ten rows as for a million.
    open_rows: list[list[int]] = [[] for _ in range(length + 1)]
    is_open = np.zeros(length + 1, bool)
    rows = 0
    for index, needed in enumerate(size.tolist()):
        room = needed + int(is_open[needed:].argmax())
        if is_open[room]:
            target = open_rows[room].pop()
            is_open[room] = bool(open_rows[room])
        else:
            target, room, rows = rows, length, rows + 1
        row[index], start[index] = target, length - room
        open_rows[room - needed].append(target)
        is_open[room - needed] = True
    return row, start, rows


def _order_in_row(row: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Returns 1, 2, .. for the first, second, .. sequence of each row."""
    order = np.lexsort((start, row))
    sorted_rows = row[order]
    first_of_row = np.searchsorted(sorted_rows, sorted_rows, side="left")
    order_in_row = np.empty(len(row), np.int32)
    order_in_row[order] = np.arange(len(row)) - first_of_row + 1
    return order_in_row


def _fill(
    fields: Mapping[str, np.ndarray], size: np.ndarray, row: np.ndarray, start: np.ndarray, rows: int, length: int
) -> dict[str, np.ndarray]:
    # One flat index for all tokens of all sequences: each field then takes a single assignment.
    positions = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    flat_index = np.repeat(row.astype(np.int64) * length + start, size) + positions
    added = {"segment_ids": np.repeat(_order_in_row(row, start), size), "positions": positions.astype(np.int32)}
    arrays = {}
    for name, values in {**fields, **added}.items():
        arrays[name] = np.zeros(rows * length, values.dtype)
        arrays[name][flat_index] = values
        arrays[name] = arrays[name].reshape(rows, length)
    return arrays
