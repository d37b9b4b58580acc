"""Contexts with their continuations as packed rows: each context once, its continuations behind it as branches."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from llama2_jax.inference.rows import row_length
from llama2_jax.text.packing import Packed, pack


@dataclasses.dataclass(frozen=True)
class Tree:
    """A context and continuations of it; no continuation's last token is read, it is only looked up.

    Attributes:
      fields: tokens, branches (0 in the context) and text_positions, as models/branching.py reads them.
      states: for each token to look up the place in the tree of the state that predicts it.
      targets: these tokens.
      owners: which continuation each belongs to.
    """

    fields: Mapping[str, Int[np.ndarray, " size"]]
    states: Int[np.ndarray, " targets"]
    targets: Int[np.ndarray, " targets"]
    owners: Int[np.ndarray, " targets"]


@dataclasses.dataclass(frozen=True)
class PackedTrees:
    """Trees in rows of one length.

    Attributes:
      packed: the rows.
      rows: for each token to look up its row, and `columns`: the column of the state that predicts it.
      targets: the tokens to look up.
      owners: which continuation each belongs to.
    """

    packed: Packed
    rows: Int[np.ndarray, " targets"]
    columns: Int[np.ndarray, " targets"]
    targets: Int[np.ndarray, " targets"]
    owners: Int[np.ndarray, " targets"]


def grow(
    first: int, context: Sequence[int], continuations: Mapping[int, Sequence[int]], longest: int
) -> Iterator[Tree]:
    """Yields a context with its continuations, on as many trees as have no more than `longest` tokens each.

    Args:
      first: the position of the context's first token.
      context: token ids, at least one.
      continuations: by owner, token ids, at least one each.
      longest: the context and each continuation but its last token must fit.
    """
    branches: dict[int, Sequence[int]] = {}
    size = len(context)
    for owner, continuation in continuations.items():
        if branches and size + len(continuation) - 1 > longest:
            yield _tree(first, context, branches)
            branches, size = {}, len(context)
        branches[owner] = continuation
        size += len(continuation) - 1
    yield _tree(first, context, branches)


def _tree(first: int, context: Sequence[int], continuations: Mapping[int, Sequence[int]]) -> Tree:
    tokens, branches = [np.asarray(context)], [np.zeros(len(context))]
    positions = [first + np.arange(len(context))]
    states, size = [], len(context)
    for branch, continuation in enumerate(continuations.values(), start=1):
        read = len(continuation) - 1
        tokens.append(np.asarray(continuation[:-1]))
        branches.append(np.full(read, branch))
        positions.append(first + len(context) + np.arange(read))
        # The context's last state predicts the first token, each token's the next.
        states.append(np.asarray([len(context) - 1, *range(size, size + read)]))
        size += read
    fields = {"tokens": tokens, "branches": branches, "text_positions": positions}
    return Tree(
        {name: np.concatenate(parts).astype(np.int32) for name, parts in fields.items()},
        states=np.concatenate(states),
        targets=np.concatenate([np.asarray(continuation) for continuation in continuations.values()]),
        owners=np.repeat([*continuations], [len(continuation) for continuation in continuations.values()]),
    )


def pack_trees(trees: Sequence[Tree], max_length: int) -> Iterator[PackedTrees]:
    """Yields the trees, packed into rows of few lengths, at most max_length."""
    lengths = [row_length(len(tree.fields["tokens"]), max_length) for tree in trees]
    for length in sorted(set(lengths)):
        alike = [tree for tree, its in zip(trees, lengths, strict=True) if its == length]
        packed = pack([tree.fields for tree in alike], length, 1)
        sizes = [len(tree.targets) for tree in alike]
        yield PackedTrees(
            packed,
            rows=np.repeat(packed.row, sizes),
            columns=np.repeat(packed.start, sizes) + np.concatenate([tree.states for tree in alike]),
            targets=np.concatenate([tree.targets for tree in alike]),
            owners=np.concatenate([tree.owners for tree in alike]),
        )
