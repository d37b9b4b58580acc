"""Batches for fine-tuning: dialogues of several sources, shuffled in each epoch and packed; none is cut or lost."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from jaxtyping import Int

from llama2_jax.data.epochs import Batches, batches_by_number, generator, shuffled
from llama2_jax.text.dialogue import EncodedDialogue, Message, encode_dialogue
from llama2_jax.text.packing import assign_rows, fill_rows
from llama2_jax.text.tokenizer import Tokenizer

# What may become of a conversation that is too long, and of a dialogue besides.
TOO_LONG = ("raise", "drop", "truncate_left")
SPLIT = "split"
DIALOGUES_TOO_LONG = (*TOO_LONG, "truncate_right", SPLIT)


def dialogue_batches(
    dialogues: Mapping[str, Sequence[EncodedDialogue]],
    length: int,
    batch_size: int,
    epochs: int,
    seed: int,
    *,
    weights: Mapping[str, float] | None = None,
    short_length: int | None = None,
) -> Batches:
    """Returns packed batches of dialogues (section 3.1): each epoch has every dialogue once, in a new order.

    Attention over a row costs its length squared. With a `short_length` only those that need it stand in rows of
    `length`, with others in their gaps; the rest stand in short rows, in batches of their own, of as many tokens.

    Args:
      dialogues: the dialogues of each source; none longer than `length` (see `fit_to_length`).
      length: tokens a row.
      batch_size: rows of `length` a batch.
      epochs: their number.
      seed: determines the order.
      weights: for each source how often its dialogues are seen in an epoch; by default once. For a fractional part each
        epoch draws different dialogues.
      short_length: tokens a short row; None for none.

    Returns:
      Batches of {tokens, segment_ids, positions, loss_mask}, int32 [batch_size, length], or of short rows
      [batch_size * length // short_length, short_length], and `ids`, the names "source/index" of their dialogues. An
      epoch's last batch of each kind is filled up with rows of padding (segment 0).

    Raises:
      ValueError: if a dialogue is too long, a weight is negative or of an unknown source, batch_size is below 1, or
        short_length is not between 1 and length.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: wanted at least 1 row")
    if short_length is not None and not 1 <= short_length <= length:
        raise ValueError(f"short_length={short_length}: wanted 1 to length={length}, or None for no short rows")
    unknown = set(weights or {}) - set(dialogues)
    if unknown:
        raise ValueError(f"weights are given for {sorted(unknown)}; the sources are {sorted(dialogues)}")
    names = [f"{source}/{index}" for source, encoded in dialogues.items() for index in range(len(encoded))]
    sequences = [
        {"tokens": dialogue.tokens, "loss_mask": dialogue.loss_mask}
        for encoded in dialogues.values()
        for dialogue in encoded
    ]
    size = np.asarray([len(sequence["tokens"]) for sequence in sequences], np.int32)
    if not len(size):
        raise ValueError(f"there are no dialogues in the sources {sorted(dialogues)}")
    if size.max() > length or not size.min():
        wrong = int(np.argmax((size > length) | (size == 0)))
        raise ValueError(f"dialogue {names[wrong]} has {size[wrong]} tokens; a row has room for 1 to {length}")
    counts = [(source, len(encoded), (weights or {}).get(source, 1.0)) for source, encoded in dialogues.items()]
    epoch_members = (_members(counts, seed, epoch) for epoch in range(epochs))
    rows = [_rows(members, size, length, short_length or length) for members in epoch_members]
    plans = [_plan(of_epoch, batch_size * length, seed, epoch) for epoch, of_epoch in enumerate(rows)]
    planned = [batch for plan in plans for batch in plan]

    def make(step: int) -> dict:
        rows, first, count = planned[step]
        members, row, start = rows.between(first, first + count)
        batch = fill_rows([sequences[index] for index in members], row - first, start, count, rows.length)
        return {**batch, "ids": [names[index] for index in members]}

    return batches_by_number(make, tuple(len(plan) for plan in plans))


def fit_to_length(
    dialogues: Sequence[EncodedDialogue], length: int, policy: str, source: str, bos_id: int
) -> tuple[list[EncodedDialogue], int]:
    """Drops or truncates dialogues that do not fit the context.

    Args:
      dialogues: of one source.
      length: the most tokens.
      policy: for longer ones: "raise", "drop" them, "truncate_left" (`truncate_left`) or "truncate_right", which keeps
        the first tokens (LIMA: "trimmed"). Under "split" whoever encodes them splits them (`split_dialogue`), and what
        is still too long, a single turn with its answer, is dropped.
      source: its name, for messages.
      bos_id: the tokenizer's.

    Returns:
      The dialogues that fit, and how many were dropped or truncated, which is also logged.

    Raises:
      ValueError: if a dialogue is too long under "raise", or the policy is unknown.
    """
    if policy not in DIALOGUES_TOO_LONG:
        raise ValueError(f"too_long={policy!r}: choose one of {', '.join(DIALOGUES_TOO_LONG)}")
    long = [index for index, dialogue in enumerate(dialogues) if len(dialogue) > length]
    if long and policy == "raise":
        raise ValueError(
            f"source {source!r}, dialogue {long[0]}: {len(dialogues[long[0]])} tokens do not fit the length {length}; "
            f"{len(long)} of {len(dialogues)} are too long. Raise the length, or set too_long to one of "
            f"{', '.join(DIALOGUES_TOO_LONG[1:])}"
        )
    if long:
        logging.warning(
            "%s: %d of %d dialogues are longer than %d: %s", source, len(long), len(dialogues), length, policy
        )
    if policy in ("drop", SPLIT):
        return [dialogue for dialogue in dialogues if len(dialogue) <= length], len(long)
    if policy == "truncate_right":
        return [_first_tokens(dialogue, length) for dialogue in dialogues], len(long)
    return [truncate_left(dialogue, length, bos_id) for dialogue in dialogues], len(long)


def split_dialogue(tokenizer: Tokenizer, messages: Sequence[Message], length: int) -> list[list[Message]]:
    """Returns a dialogue as ones that fit the context, cut before turns of the user (Vicuna; FastChat's
    split_long_conversation.py).

    Each has the system message, if there is one, and as many pairs of a turn and its answer as fit; a pair that does
    not fit by itself is one too.

    Args:
      tokenizer: in whose chat format they are encoded.
      messages: an optional system message, then user and assistant in turn, the assistant last.
      length: the most tokens.
    """
    if len(encode_dialogue(tokenizer, messages, loss="none")) <= length:
        return [list(messages)]
    first = 1 if messages[0]["role"] == "system" else 0
    system, parts, part = list(messages[:first]), [], []
    for start in range(first, len(messages), 2):
        longer = [*part, *messages[start : start + 2]]
        if part and len(encode_dialogue(tokenizer, [*system, *longer], loss="none")) > length:
            parts.append([*system, *part])
            longer = list(messages[start : start + 2])
        part = longer
    return [*parts, [*system, *part]]


def truncate_left(dialogue: EncodedDialogue, length: int, bos_id: int) -> EncodedDialogue:
    """Drops a dialogue's oldest pairs until it fits; keeps BOS and the newest tokens if a single pair is too long.

    Args:
      dialogue: cut where its pairs begin (`starts`); a BOS among sampled ids begins none.
      length: the most tokens.
      bos_id: put in the place of the first token kept of a pair that is cut.
    """
    excess = len(dialogue) - length
    if excess <= 0:
        return dialogue
    fitting = [start for start in dialogue.starts if start >= excess]
    if fitting:
        first = fitting[0]
        starts = tuple(start - first for start in fitting)
        return EncodedDialogue(dialogue.tokens[first:], dialogue.loss_mask[first:], starts)
    tokens, mask = dialogue.tokens[excess:].copy(), dialogue.loss_mask[excess:].copy()
    tokens[0], mask[0] = bos_id, 0
    return EncodedDialogue(tokens, mask)


def _first_tokens(dialogue: EncodedDialogue, length: int) -> EncodedDialogue:
    starts = tuple(start for start in dialogue.starts if start < length)
    return EncodedDialogue(dialogue.tokens[:length], dialogue.loss_mask[:length], starts)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Dialogues in rows of one length, by row and column.

    Attributes:
      length: tokens a row.
      count: the number of rows.
      members, row, start: the index of each dialogue, its row and its first column.
    """

    length: int
    count: int
    members: Int[np.ndarray, " n"]
    row: Int[np.ndarray, " n"]
    start: Int[np.ndarray, " n"]

    def between(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the dialogues in rows first, .., end - 1, their rows and their first columns."""
        begin, stop = np.searchsorted(self.row, (first, end))
        return self.members[begin:stop], self.row[begin:stop], self.start[begin:stop]


def _rows(
    members: Int[np.ndarray, " n"], size: Int[np.ndarray, "all"], length: int, short_length: int
) -> tuple[_Rows, ...]:
    """Returns an epoch's rows: those of `length`, if anything is longer than a short row, filled up, and short ones."""
    is_long, long_rows = size[members] > short_length, ()
    if is_long.any():
        members = np.concatenate([members[is_long], members[~is_long]])
        row, start, _ = assign_rows(size[members], length)
        count = int(row[: is_long.sum()].max()) + 1
        inside = row < count
        long_rows = (_in_order(length, count, members[inside], row[inside], start[inside]),)
        members = members[~inside]
    row, start, count = assign_rows(size[members], short_length)
    return (*long_rows, _in_order(short_length, count, members, row, start))


def _in_order(length: int, count: int, members: np.ndarray, row: np.ndarray, start: np.ndarray) -> _Rows:
    order = np.lexsort((start, row))
    return _Rows(length, count, members[order], row[order], start[order])


def _plan(rows: Sequence[_Rows], tokens: int, seed: int, epoch: int) -> list[tuple[_Rows, int, int]]:
    """Returns an epoch's batches, of so many tokens each: their rows, the first of these and their number."""
    kinds = []
    for of_length in rows:
        count = tokens // of_length.length
        kinds.append([(of_length, first, count) for first in range(0, of_length.count, count)])
    batches = [batch for kind in kinds for batch in kind]
    if len(kinds) == 1:
        return batches
    return [batches[index] for index in shuffled(len(batches), seed, "batches", epoch)]


def _members(counts: Sequence[tuple[str, int, float]], seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    """Returns the indices of an epoch's dialogues, shuffled, each repeated by its weight."""
    members, before = [], 0
    for source, count, weight in counts:
        if not weight >= 0:
            raise ValueError(f"source {source!r} has weight {weight}; wanted 0 or more")
        drawn = round((weight % 1) * count)
        part = generator(seed, "fraction", source, epoch).permutation(count)[:drawn]
        members.append(before + np.concatenate([np.tile(np.arange(count), int(weight)), part]))
        before += count
    joined = np.concatenate(members)
    return joined[shuffled(len(joined), seed, "order", epoch)]
