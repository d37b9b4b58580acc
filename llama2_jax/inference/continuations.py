"""Log-likelihoods of continuations of contexts; what shares a context shares the reading of it.

Multiple-choice tasks ask for several short continuations of one context, and few-shot contexts begin alike. A context
is read once, with its continuations as branches behind it (trees.py), and many such trees are packed into a row. A
prefix that many contexts share is read once for all of them.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from llama2_jax.inference.contexts import group_by_prefix, make_reader
from llama2_jax.inference.generate import bucket, prefill_rows
from llama2_jax.inference.rows import rows_at_once
from llama2_jax.inference.stream import Streamer
from llama2_jax.inference.trees import PackedTrees, grow, pack_trees
from llama2_jax.models import decoding
from llama2_jax.models.branching import branched_states
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.decoding import DecodingWeights
from llama2_jax.models.kv_cache import KVCache
from llama2_jax.objectives.log_probabilities import log_probabilities
from llama2_jax.sharding.axes import constrain, replicate
from llama2_jax.sharding.mesh import data_parallel_size

# So many tokens are looked up at once, or fewer, so that their logits take 134 MB at most.
TARGETS_AT_ONCE, LOGITS_AT_ONCE = 2048, 2**25


@dataclasses.dataclass(frozen=True)
class ContinuationScore:
    """A continuation's score.

    Attributes:
      log_likelihood: the sum of its tokens' log-probabilities, in nats.
      is_greedy: whether no token is less likely than another in its place, so that greedy decoding would give it.
    """

    log_likelihood: float
    is_greedy: bool


def score_continuations(
    config: ModelConfig, params: Mapping, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> list[ContinuationScore]:
    """Returns the score of each continuation of its context.

    Args:
      config: the language model.
      params: its parameters; if they are on a mesh, rows are split over it.
      contexts: token ids, at least one each; equal ones are read once.
      continuations: token ids, at least one each, one continuation for each context.

    Raises:
      ValueError: if there are not as many continuations as contexts, one is empty, or a pair is too long.
    """
    _check(config, contexts, continuations)
    places: dict[tuple[int, ...], list[int]] = {}
    for place, context in enumerate(contexts):
        places.setdefault(tuple(context), []).append(place)
    unique = list(places)
    log_likelihoods, are_greedy = np.zeros(len(contexts)), np.ones(len(contexts), bool)
    reader = make_reader(config, params) if unique else None
    for prefix, members in group_by_prefix(unique):
        cache = _read_prefix(reader, unique[members[0]][:prefix]) if prefix else None
        trees = [
            tree
            for context in (unique[index] for index in members)
            for tree in grow(
                prefix, context[prefix:], {place: continuations[place] for place in places[context]}, config.max_length
            )
        ]
        for packed in pack_trees(trees, config.max_length):
            logps, highest = _score(reader, cache, packed)
            np.add.at(log_likelihoods, packed.owners, logps)
            np.logical_and.at(are_greedy, packed.owners, highest)
    return [
        ContinuationScore(float(total), bool(greedy)) for total, greedy in zip(log_likelihoods, are_greedy, strict=True)
    ]


def _check(config: ModelConfig, contexts: Sequence, continuations: Sequence) -> None:
    if len(contexts) != len(continuations):
        raise ValueError(f"{len(contexts)} contexts and {len(continuations)} continuations: give one for each context")
    for index, (context, continuation) in enumerate(zip(contexts, continuations, strict=True)):
        if not len(context) or not len(continuation):
            raise ValueError(
                f"pair {index} has {len(context)} tokens of context and {len(continuation)} of continuation; both "
                "must be at least 1"
            )
        if len(context) + len(continuation) > config.max_length + 1:
            raise ValueError(
                f"pair {index} has {len(context)} tokens of context and {len(continuation)} of continuation; the "
                f"model's max_length is {config.max_length}, and the last token is not read: shorten the context"
            )


def _read_prefix(reader: Streamer, prefix: Sequence[int]) -> KVCache:
    """Reads a prefix once on each group of devices."""
    groups, slots = data_parallel_size(reader.mesh), bucket(len(prefix))
    tokens, positions = np.zeros((groups, slots), np.int32), np.full((groups, slots), -1, np.int32)
    tokens[:, : len(prefix)], positions[:, : len(prefix)] = prefix, np.arange(len(prefix))
    _, cache = prefill_rows(
        reader.weights, tokens, positions, np.zeros(groups, np.int32),
        config=reader.config, slots=slots, mesh=reader.mesh,
    )  # fmt: skip
    return cache


def _score(
    reader: Streamer, prefix: KVCache | None, trees: PackedTrees
) -> tuple[Float[np.ndarray, " targets"], Bool[np.ndarray, " targets"]]:
    """Returns the log-probability of each token to look up, and whether no other has a higher one."""
    arrays, config = trees.packed.arrays, reader.config
    length = trees.packed.length
    size = rows_at_once(config, reader.mesh, length)
    logps, highest = np.zeros(len(trees.targets), np.float64), np.zeros(len(trees.targets), bool)
    for first in range(0, trees.packed.rows, size):
        block = [
            _padded(arrays[name][first : first + size], size)
            for name in ("tokens", "text_positions", "segment_ids", "branches")
        ]
        states = tree_states(reader.weights, *block, prefix, config=config, mesh=reader.mesh)
        here = np.flatnonzero((trees.rows >= first) & (trees.rows < first + size))
        at_once = min(TARGETS_AT_ONCE, max(1, LOGITS_AT_ONCE // config.vocab_size))
        for chunk in (here[start : start + at_once] for start in range(0, len(here), at_once)):
            places = (trees.rows[chunk] - first) * length + trees.columns[chunk]
            looked_up = _look_up(
                reader.weights, states, _padded(places.astype(np.int32), at_once),
                _padded(trees.targets[chunk].astype(np.int32), at_once), mesh=reader.mesh,
            )  # fmt: skip
            logps[chunk], highest[chunk] = (np.asarray(array)[: len(chunk)] for array in looked_up)
    return logps, highest


def _padded(array: np.ndarray, size: int) -> np.ndarray:
    return np.pad(array, ((0, size - len(array)), *((0, 0),) * (array.ndim - 1)))


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def tree_states(
    weights: DecodingWeights,
    tokens: Int[Array, "rows length"],
    positions: Int[Array, "rows length"],
    segment_ids: Int[Array, "rows length"],
    branches: Int[Array, "rows length"],
    prefix: KVCache | None,
    *,
    config: ModelConfig,
    mesh: Mesh | None,
) -> Float[Array, "tokens dim"]:
    """Returns the hidden state of each token of packed trees, row after row; the arguments are `branched_states`'s."""
    states = branched_states(weights, tokens, positions, segment_ids, branches, prefix, config, mesh)
    return replicate(states.reshape(-1, config.dim), mesh)


@functools.partial(jax.jit, static_argnames=("mesh",))
def _look_up(
    weights: DecodingWeights,
    states: Float[Array, "tokens dim"],
    places: Int[Array, " targets"],
    targets: Int[Array, " targets"],
    *,
    mesh: Mesh | None,
) -> tuple[Float[Array, " targets"], Bool[Array, " targets"]]:
    """Returns each target's log-probability, given the state at its place, and whether no other has a higher one."""
    logits = constrain(decoding.logits(weights, states[places]), mesh, (None, "vocab"))
    logits = constrain(logits, mesh, (None, None))
    chosen = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    scores = log_probabilities(logits, targets, 1.0), chosen >= jnp.max(logits, axis=-1)
    return replicate(scores, mesh)
