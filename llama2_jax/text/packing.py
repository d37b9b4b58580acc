"""Packing of finished token sequences into rows, for fine-tuning, scoring, reward models and PPO."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class Packed:
    """Sequences laid out in rows.

    Attributes:
      arrays: the sequences' fields, each [rows, length] with zeros where nothing lies, and two of the packing's own:
        `segment_ids` int32 [rows, length] (0 = padding, 1, 2, .. = the row's sequences in order) and
        `positions` int32 [rows, length] (0, 1, .. within each sequence).
      row: int32 [n], the row of each sequence, in the order in which they were given.
      start: int32 [n], the column of its first token.
      size: int32 [n], its number of tokens; its last token lies at column start + size - 1.
    """

    arrays: dict[str, np.ndarray]
    row: Int[np.ndarray, "n"]
    start: Int[np.ndarray, "n"]
    size: Int[np.ndarray, "n"]

    @property
    def rows(self) -> int:
        return len(self.arrays["segment_ids"])

    @property
    def last(self) -> Int[np.ndarray, "n"]:
        """The column of each sequence's last token."""
        return self.start + self.size - 1

    def unpack(self, array: np.ndarray) -> list[np.ndarray]:
        """The part of an array [rows, length, ...] that belongs to each sequence, in the order given."""
        array = np.asarray(array)
        return [
            array[row, start : start + size] for row, start, size in zip(self.row, self.start, self.size, strict=True)
        ]


def pack(
    sequences: Sequence[Mapping[str, np.ndarray]], length: int, row_multiple: int = 8, rows: int | None = None
) -> Packed:
    """Packs sequences into rows, longest first, each into the fullest row that has room; no sequence is ever split.

    Longest first leaves few gaps; equal lengths keep their order, so the result depends on the input alone.

    Args:
      sequences: for each its fields, 1-D arrays of one length (such as `tokens`, `loss_mask`); all have the same.
      length: tokens a row.
      row_multiple: the number of rows is rounded up to a multiple of it, so that few program shapes occur.
      rows: the exact number of rows instead.

    Returns:
      The packed arrays and where each sequence lies. Rows beyond the last sequence are padding (segment 0).

    Raises:
      ValueError: if a sequence is empty, longer than `length`, has fields of unequal lengths or other fields than the
        first one; if they need more than `rows` rows; if there is no sequence at all.
    """
    fields, size = _checked(sequences, length)
    order = np.argsort(-size, kind="stable")
    row, start = np.empty_like(size), np.empty_like(size)
    row[order], start[order], needed = assign_rows(size[order], length)
    if rows is None:
        rows = -(-needed // row_multiple) * row_multiple
    elif needed > rows:
        raise ValueError(
            f"{len(size)} sequences of {size.sum()} tokens need {needed} rows of {length}, but rows={rows}: "
            "raise rows, or pass fewer sequences"
        )
    return Packed(_lay_out(fields, size, row, start, rows, length), row, start, size)


def lay_out(
    sequences: Sequence[Mapping[str, np.ndarray]],
    row: Int[np.ndarray, "n"],
    start: Int[np.ndarray, "n"],
    rows: int,
    length: int,
) -> dict[str, np.ndarray]:
    """The arrays of `Packed` for sequences whose rows and first columns are known (from `assign_rows`).

    Raises:
      ValueError: as `pack`, for a sequence that is empty, too long or has wrong fields.
    """
    fields, size = _checked(sequences, length)
    return _lay_out(fields, size, row, start, rows, length)


def _checked(sequences: Sequence[Mapping[str, np.ndarray]], length: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The fields of all sequences joined end to end, and the size of each sequence."""
    if not sequences:
        raise ValueError("there are no sequences to pack")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in sequences[0]}
    reserved = {"segment_ids", "positions"} & columns.keys()
    if reserved or not columns:
        raise ValueError(f"sequences have the fields {sorted(columns)}: segment_ids and positions are made here")
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
                f"sequence {index} has {size[index]} tokens; rows hold 1 to {length}: raise the length, or truncate or "
                f"drop the sequence before packing"
            )
        for name, values in sequence.items():
            columns[name].append(np.asarray(values))
    return {name: _as_32_bit(np.concatenate(values)) for name, values in columns.items()}, size


def _as_32_bit(values: np.ndarray) -> np.ndarray:
    """Python integers and floats arrive as 64 bits, which no device wants."""
    narrow = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}
    return values.astype(narrow.get(values.dtype, values.dtype))


def assign_rows(size: Int[np.ndarray, "n"], length: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"], int]:
    """Places sequences in rows in the order given: into the fullest row that still has room, else into a new one.

    Args:
      size: the number of tokens of each sequence, 1 to length.
      length: tokens a row.

    Returns:
      row and start (first column) of each sequence, and the number of rows.
    """
    row, start = np.empty(len(size), np.int32), np.empty(len(size), np.int32)
    # Rows by the room left in them: looking one up costs the same for ten rows as for a million.
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
    """1, 2, .. for the first, second, .. sequence of each row."""
    order = np.lexsort((start, row))
    sorted_rows = row[order]
    first_of_row = np.searchsorted(sorted_rows, sorted_rows, side="left")
    number = np.empty(len(row), np.int32)
    number[order] = np.arange(len(row)) - first_of_row + 1
    return number


def _lay_out(
    fields: Mapping[str, np.ndarray], size: np.ndarray, row: np.ndarray, start: np.ndarray, rows: int, length: int
) -> dict[str, np.ndarray]:
    # One flat index for all tokens of all sequences: each field is then laid out by a single assignment.
    within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    place = np.repeat(row.astype(np.int64) * length + start, size) + within
    own = {"segment_ids": np.repeat(_order_in_row(row, start), size), "positions": within.astype(np.int32)}
    arrays = {}
    for name, values in {**fields, **own}.items():
        arrays[name] = np.zeros(rows * length, values.dtype)
        arrays[name][place] = values
        arrays[name] = arrays[name].reshape(rows, length)
    return arrays
