"""Contexts read in batches, ready for an answer to each.

The few-shot prompts of a task begin with the same examples. Contexts that share a long prefix are batched together and
it is read once for all rows of a batch, not once a row.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from llama2_jax.inference.batches import generation_batch_size
from llama2_jax.inference.consolidation import generation_weights
from llama2_jax.inference.generate import bucket, prefill_rows
from llama2_jax.inference.stream import Streamer, shared_prefix
from llama2_jax.inference.turns import blocks_of, read_block
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.kv_cache import KVCache
from llama2_jax.sharding.mesh import data_parallel_size, mesh_of

# Shorter prefixes, or those of fewer contexts, are not worth a program of their own.
SHORTEST_PREFIX, FEWEST_SHARING = 64, 4
# Caches are kept for so many times scoring_tokens at most. Chosen, not tuned.
ROWS_TO_SCORING = 4


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


def read_contexts(reader: Streamer, contexts: Sequence[Sequence[int]], free_slots: int) -> Iterator[ContextBatch]:
    """Yields the contexts in batches, each context once: of generation_rows, or of fewer where they are long.

    Args:
      reader: the model.
      contexts: token ids, at least one each.
      free_slots: how many tokens may follow each of them.

    Raises:
      ValueError: if a context is empty.
    """
    for index, context in enumerate(contexts):
        if not len(context):
            raise ValueError(f"context {index} has no token; wanted one at least, such as BOS")
    for prefix, members in group_by_prefix(contexts):
        members = sorted(members, key=lambda index: -len(contexts[index]))
        while members:
            plan = _plan(reader, prefix, len(contexts[members[0]]), free_slots, len(members))
            yield _read(reader, plan, members[: plan.rows], contexts)
            members = members[plan.rows :]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How a batch is read. Few plans occur, since each is a program to compile.

    Attributes:
      rows: of the batch.
      prefix: how many tokens are read once for all rows.
      length: to which the prefix is padded, or each context if there is none.
      blocks: the sizes in which what follows the prefix is read.
      slots: of the cache.
    """

    rows: int
    prefix: int
    length: int
    blocks: tuple[int, ...]
    slots: int


def _plan(reader: Streamer, prefix: int, longest: int, free_slots: int, count: int) -> _Plan:
    """Returns the plan for `count` contexts that are left, the longest of so many tokens."""
    config = reader.config
    blocks = tuple(blocks_of(longest - prefix)) if prefix else ()
    length = bucket(prefix) if prefix else max(longest, min(bucket(longest), config.max_length - free_slots))
    slots = length + bucket(sum(blocks)) * bool(blocks) + free_slots
    return _Plan(rows_of(config, reader.mesh, slots, count), prefix, length, blocks, slots)


def rows_of(config: ModelConfig, mesh: Mesh | None, slots: int, count: int | None = None) -> int:
    """Returns how many contexts are read together: as many on each device, a power of two.

    Args:
      config: the model.
      mesh: the devices.
      slots: of a row's cache.
      count: the contexts that are left; None if they are many.
    """
    groups = data_parallel_size(mesh)
    fitting = min(generation_batch_size(config, mesh, count), ROWS_TO_SCORING * config.scoring_tokens // slots)
    return groups << (max(1, fitting // groups).bit_length() - 1)


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


def _read(reader: Streamer, plan: _Plan, batch: Sequence[int], contexts: Sequence[Sequence[int]]) -> ContextBatch:
    groups, prefix = data_parallel_size(reader.mesh), plan.prefix
    # The prefix once on each group of devices, whose rows all continue it; or else each context on its row.
    beginnings = [contexts[batch[0]][:prefix]] * groups if prefix else [contexts[index] for index in batch]
    tokens, positions = _padded(beginnings, plan.length, groups if prefix else plan.rows)
    # A row without a token would attend to nothing.
    positions[:, 0] = 0
    hidden, cache = prefill_rows(
        reader.weights, tokens, positions, np.zeros(plan.rows, np.int32),
        config=reader.config, slots=plan.slots, mesh=reader.mesh,
    )  # fmt: skip
    first = prefix
    for size in plan.blocks:
        parts = [contexts[index][first : first + size] for index in batch]
        tokens, positions = _padded(parts, size, plan.rows, first)
        hidden, cache = read_block(
            reader.weights, tokens, positions, cache, hidden, config=reader.config, mesh=reader.mesh
        )
        first += size
    return ContextBatch(tuple(batch), hidden, cache)


def _padded(
    texts: Sequence[Sequence[int]], length: int, rows: int, first: int = 0
) -> tuple[Int[np.ndarray, "rows length"], Int[np.ndarray, "rows length"]]:
    """Returns tokens and their positions; position -1 where there is no token."""
    tokens, positions = np.zeros((rows, length), np.int32), np.full((rows, length), -1, np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = text
        positions[row, : len(text)] = first + np.arange(len(text))
    return tokens, positions
