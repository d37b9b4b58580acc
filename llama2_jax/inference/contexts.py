"""Contexts read in batches, ready for whatever follows each: continuations to score, or an answer.

The few-shot prompts of a task begin with the same examples. Contexts that share a long prefix are batched together and
it is read once for all rows of a batch, not once a row.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int

from llama2_jax.inference.consolidation import generation_weights
from llama2_jax.inference.generate import bucket, prefill_rows
from llama2_jax.inference.stream import Streamer, shared_prefix
from llama2_jax.inference.turns import blocks_of, read_block
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.kv_cache import KVCache
from llama2_jax.sharding.mesh import data_parallel_size, mesh_of

# Shorter prefixes, or those of fewer contexts, are not worth a program of their own.
SHORTEST_PREFIX, FEWEST_SHARING = 64, 4


@dataclasses.dataclass(frozen=True)
class ContextBatch:
    """Contexts that were read together, one a row.

    Attributes:
      indices: which context each row has; the rows behind them are padding.
      hidden: the state of each context's last token.
      cache: with free slots at the end of each row.
    """

    indices: tuple[int, ...]
    hidden: Float[Array, "rows dim"]
    cache: KVCache


def make_reader(config: ModelConfig, params: dict[str, Any]) -> Streamer:
    """Converts a language model's parameters for reading; they stay as they are."""
    return Streamer(config, generation_weights(config, params), mesh_of(params))


def read_contexts(
    reader: Streamer, contexts: Sequence[Sequence[int]], free_slots: Sequence[int]
) -> Iterator[ContextBatch]:
    """Yields the contexts in batches of scoring_tokens slots or less, each context once.

    Args:
      reader: the model.
      contexts: token ids, at least one each.
      free_slots: for each context how many tokens may follow it.

    Raises:
      ValueError: if a context is empty.
    """
    for index, context in enumerate(contexts):
        if not len(context):
            raise ValueError(f"context {index} has no token; wanted one at least, such as BOS")
    for prefix, members in group_by_prefix(contexts):
        members = sorted(members, key=lambda index: (len(contexts[index]), free_slots[index]))
        while members:
            batch, members = _first_batch(reader, prefix, members, contexts, free_slots)
            yield _read(reader, prefix, batch, contexts, max(free_slots[index] for index in batch))


def group_by_prefix(contexts: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """Returns groups of contexts (indices), each with the length of the prefix that is read once for all of its rows.

    The last token of a context is never in it. Contexts that share too little are in one group, of prefix 0.
    """
    groups: list[tuple[int, list[int]]] = []
    for index in sorted(range(len(contexts)), key=lambda index: tuple(contexts[index])):
        prefix, members = groups[-1] if groups else (0, [])
        shared = min(prefix, len(contexts[index]) - 1)
        # In sorted order, what a context shares with the one before it, or less, it shares with those before that.
        shared = min(shared, shared_prefix(contexts[members[-1]], contexts[index])) if members else 0
        # A context that shares little may not take from many what they share.
        if shared >= SHORTEST_PREFIX and (len(members) < FEWEST_SHARING or 2 * shared >= prefix):
            groups[-1] = (shared, [*members, index])
        else:
            groups.append((len(contexts[index]) - 1, [index]))
    sharing = [group for group in groups if len(group[1]) >= FEWEST_SHARING]
    alone = sorted(index for _, members in groups if len(members) < FEWEST_SHARING for index in members)
    return [(0, alone)] * bool(alone) + sharing


def _first_batch(
    reader: Streamer,
    prefix: int,
    members: Sequence[int],
    contexts: Sequence[Sequence[int]],
    free_slots: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Splits off as many contexts, of rising length, as fit into scoring_tokens."""
    free = 0
    for count, index in enumerate(members):
        free = max(free, free_slots[index])
        if count and count >= _most_rows(reader, _slots(prefix, len(contexts[index]), free)):
            return list(members[:count]), list(members[count:])
    return list(members), []


def _read(
    reader: Streamer, prefix: int, batch: Sequence[int], contexts: Sequence[Sequence[int]], free: int
) -> ContextBatch:
    groups = data_parallel_size(reader.mesh)
    longest = max(len(contexts[index]) for index in batch)
    slots = _slots(prefix, longest, free)
    rows = _most_rows(reader, slots)
    # The prefix once on each group of devices, whose rows all continue it; or else each context on its row.
    beginnings = [contexts[batch[0]][:prefix]] * groups if prefix else [contexts[index] for index in batch]
    tokens, positions = _padded(
        beginnings, bucket(prefix) if prefix else slots - free_bucket(free), groups if prefix else rows
    )
    # A row without a token would attend to nothing.
    positions[:, 0] = 0
    hidden, cache = prefill_rows(
        reader.weights, tokens, positions, np.zeros(rows, np.int32),
        config=reader.config, slots=slots, mesh=reader.mesh,
    )  # fmt: skip
    first = prefix
    for size in blocks_of(longest - prefix) if prefix else ():
        parts = [contexts[index][first : first + size] for index in batch]
        tokens, positions = _padded(parts, size, rows, first)
        hidden, cache = read_block(
            reader.weights, tokens, positions, cache, hidden, config=reader.config, mesh=reader.mesh
        )
        first += size
    return ContextBatch(tuple(batch), hidden, cache)


def free_bucket(free: int) -> int:
    """Returns how many slots are kept free for so many tokens: 0, or a power of two, so that few programs compile."""
    return 0 if free < 1 else max(4, 1 << (free - 1).bit_length())


def _most_rows(reader: Streamer, slots: int) -> int:
    """How many rows of so many slots are read together; the same number on each device."""
    groups = data_parallel_size(reader.mesh)
    fitting = max(1, reader.config.scoring_tokens // slots // groups)
    return groups << (fitting.bit_length() - 1)


def _slots(prefix: int, longest: int, free: int) -> int:
    """How many slots a row needs: a power of two, since each number is a program to compile."""
    read = bucket(prefix) + sum(blocks_of(longest - prefix)) if prefix else longest
    return bucket(read + free_bucket(free))


def _padded(
    texts: Sequence[Sequence[int]], length: int, rows: int, first: int = 0
) -> tuple[Int[np.ndarray, "rows length"], Int[np.ndarray, "rows length"]]:
    """Returns tokens and their positions; position -1 where there is no token."""
    tokens, positions = np.zeros((rows, length), np.int32), np.full((rows, length), -1, np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = text
        positions[row, : len(text)] = first + np.arange(len(text))
    return tokens, positions
