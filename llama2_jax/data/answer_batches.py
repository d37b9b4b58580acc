"""Packed batches of answers that were compared: each answer is in a batch once, and pairs name the places of two."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from llama2_jax.data.epochs import Batches, batches_by_number, shuffled
from llama2_jax.text.packing import assign_rows, fill_rows


@dataclasses.dataclass(frozen=True)
class ComparedAnswers:
    """Answers to one prompt, and which of them were preferred to which.

    Attributes:
      answers: the token ids of each, the prompt's before its own.
      pairs: [pairs, 2], of each pair the preferred answer and the other one, as indices of `answers`.
    """

    answers: Sequence[Int[np.ndarray, " tokens"]]
    pairs: Int[np.ndarray, "pairs 2"]


def answer_batches(
    groups: Sequence[ComparedAnswers],
    groups_per_batch: int,
    length: int,
    seed: int,
    epochs: int = 1,
    *,
    accumulation: int = 1,
    row_multiple: int = 8,
    labels: Mapping[str, Shaped[np.ndarray, " all_pairs"]],
    kind: str,
) -> Batches:
    """Returns batches of groups of compared answers, packed into rows.

    Batches have one of two numbers of rows, so that two compiled programs serve them all: the number that suffices for
    nine in ten batches, or that of the fullest one. The number of pairs is the same in all: of as many groups as a
    batch has, all with as many pairs as the largest one.

    Args:
      groups: what a batch has so many of. An epoch's last batch may have fewer.
      groups_per_batch: a multiple of `accumulation`.
      length: tokens a row.
      seed: determines the order, which differs in each epoch.
      epochs: their number.
      accumulation: above 1, each batch is packed as so many microbatches and every array has a leading axis of them;
        row indices are then within the microbatch.
      row_multiple: the number of rows is a multiple of it.
      labels: by name what batches have of each pair, for the pairs of all groups one after the other.
      kind: what a group is called in messages.

    Returns:
      Batches of tokens, segment_ids, positions (int32 [rows, length]); chosen_row, chosen_column, rejected_row,
      rejected_column (int32 [pairs]): the place of each answer's last token; the labels [pairs], 0 in padding pairs;
      pair_mask (float32 [pairs]); and `ids`, the indices of the groups, as strings.

    Raises:
      ValueError: if an answer is too long.
    """
    flat = _flattened(groups)
    _check_sizes(flat.size, flat.first_answer, length, kind)
    indices = np.concatenate([_batch_indices(len(groups), groups_per_batch, seed, epoch) for epoch in range(epochs)])
    microbatches = indices.reshape(len(indices), accumulation, -1)
    most_pairs = microbatches.shape[-1] * int(flat.pairs.max())
    needed = np.asarray([max(_assigned(flat, part[part >= 0], length).rows for part in step) for step in microbatches])
    usual, largest = (
        -(-int(np.quantile(needed, quantile, method="higher")) // row_multiple) * row_multiple
        for quantile in (0.9, 1.0)
    )

    def make(step: int) -> dict:
        rows = usual if needed[step] <= usual else largest
        parts = [
            _packed(flat, part[part >= 0], labels, rows=rows, length=length, most_pairs=most_pairs)
            for part in microbatches[step]
        ]
        batch = {
            name: np.stack([part[name] for part in parts]) if accumulation > 1 else parts[0][name] for name in parts[0]
        }
        return {**batch, "ids": [str(index) for index in microbatches[step].ravel() if index >= 0]}

    return batches_by_number(make, (len(indices) // epochs,) * epochs)


def check_divides(field: str, value: int, accumulation: int) -> None:
    """Raises ValueError if a batch cannot be divided into microbatches."""
    if value < 1 or value % accumulation:
        raise ValueError(
            f"{field}={value} cannot be divided into accumulation={accumulation} microbatches; choose a multiple of it"
        )


class _Flat(NamedTuple):
    """The answers and the pairs of all groups, one group after the other.

    Attributes:
      sequences, size: of each answer, and its tokens.
      all_pairs: indices of a group's own answers.
      answers, pairs: how many each group has.
      first_answer, first_pair: the place of each group's first one.
    """

    sequences: list[dict[str, np.ndarray]]
    size: Int[np.ndarray, " all_answers"]
    all_pairs: Int[np.ndarray, "all_pairs 2"]
    answers: Int[np.ndarray, " groups"]
    pairs: Int[np.ndarray, " groups"]
    first_answer: Int[np.ndarray, " groups"]
    first_pair: Int[np.ndarray, " groups"]


class _Assigned(NamedTuple):
    """The answers of some groups, by their places among all, with their rows and first columns in so many rows."""

    members: Int[np.ndarray, " answers"]
    row: Int[np.ndarray, " answers"]
    start: Int[np.ndarray, " answers"]
    rows: int


def _flattened(groups: Sequence[ComparedAnswers]) -> _Flat:
    sequences = [{"tokens": ids} for group in groups for ids in group.answers]
    size = np.asarray([len(sequence["tokens"]) for sequence in sequences], np.int32)
    counts = [np.asarray([len(getattr(group, name)) for group in groups]) for name in ("answers", "pairs")]
    firsts = [np.cumsum(one) - one for one in counts]
    return _Flat(sequences, size, np.concatenate([group.pairs for group in groups]), *counts, *firsts)


def _check_sizes(
    size: Int[np.ndarray, " all_answers"], first_answer: Int[np.ndarray, " groups"], length: int, kind: str
) -> None:
    if size.max() > length or not size.min():
        wrong = int(np.argmax((size > length) | (size == 0)))
        index = int(np.searchsorted(first_answer, wrong, side="right")) - 1
        raise ValueError(f"{kind} {index} has {size[wrong]} tokens; a row has room for 1 to {length}")


def _assigned(flat: _Flat, selected: Int[np.ndarray, " groups"], length: int) -> _Assigned:
    members = _ranges(flat.first_answer[selected], flat.answers[selected])
    longest_first = np.argsort(-flat.size[members], kind="stable")
    row, start = np.empty(len(members), np.int32), np.empty(len(members), np.int32)
    row[longest_first], start[longest_first], rows = assign_rows(flat.size[members][longest_first], length)
    return _Assigned(members, row, start, rows)


def _packed(
    flat: _Flat, selected: Int[np.ndarray, " groups"], labels: Mapping[str, np.ndarray], *, rows: int, length: int,
    most_pairs: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Returns a microbatch of the selected groups; see `answer_batches`."""
    members, row, start, _ = _assigned(flat, selected, length)
    arrays = {name: np.zeros((rows, length), np.int32) for name in ("tokens", "segment_ids", "positions")}
    if len(members):
        arrays = fill_rows([flat.sequences[index] for index in members], row, start, rows, length)
    answers, pairs = flat.answers[selected], flat.pairs[selected]
    numbers = _ranges(flat.first_pair[selected], pairs)
    # A group's answers are neighbours among the members.
    begin = np.repeat(np.cumsum(answers) - answers, pairs)
    last = start + flat.size[members] - 1
    for side, name in enumerate(("chosen", "rejected")):
        places = flat.all_pairs[numbers, side] + begin
        arrays[f"{name}_row"] = _padded(row[places], most_pairs)
        arrays[f"{name}_column"] = _padded(last[places], most_pairs)
    arrays |= {name: _padded(values[numbers], most_pairs) for name, values in labels.items()}
    return {**arrays, "pair_mask": _padded(np.ones(len(numbers), np.float32), most_pairs)}


def _batch_indices(count: int, groups_per_batch: int, seed: int, epoch: int) -> Int[np.ndarray, "steps groups"]:
    """Returns the groups of each batch of an epoch; -1 is padding."""
    steps = -(-count // groups_per_batch)
    indices = np.full(steps * groups_per_batch, -1)
    indices[:count] = shuffled(count, seed, "pairs", epoch)
    return indices.reshape(steps, groups_per_batch)


def _ranges(first: Int[np.ndarray, " n"], counts: Int[np.ndarray, " n"]) -> Int[np.ndarray, " total"]:
    """Returns first, first + 1, .. for each, so many numbers, one after the other."""
    begin = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + np.repeat(first - begin, counts)


def _padded(values: Shaped[np.ndarray, " n"], size: int) -> Shaped[np.ndarray, " size"]:
    padded = np.zeros(size, values.dtype)
    padded[: len(values)] = values
    return padded
