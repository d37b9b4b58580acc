"""Log-likelihoods of continuations of contexts; what shares a context shares the reading of it.

Multiple-choice tasks ask for several short continuations of one context, and few-shot contexts begin alike: each
context is read once (contexts.py), and its continuations branch off its cache.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from llama2_jax.inference.contexts import ContextBatch, free_bucket, make_reader, read_contexts
from llama2_jax.inference.stream import Streamer
from llama2_jax.models import decoding
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.decoding import DecodingWeights
from llama2_jax.models.kv_cache import KVCache
from llama2_jax.objectives.log_probabilities import log_probabilities
from llama2_jax.sharding.axes import constrain, replicate
from llama2_jax.sharding.mesh import data_parallel_size

# So many logits are in memory at once: 134 MB.
LOGITS_AT_ONCE = 2**25


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
    # The last token is never read, it is only looked up.
    free = [max(len(continuations[place]) for place in places[context]) - 1 for context in unique]
    scores: dict[int, ContinuationScore] = {}
    reader = make_reader(config, params) if unique else None
    for batch in read_contexts(reader, unique, free) if unique else ():
        branches = [(place, row) for row, index in enumerate(batch.indices) for place in places[unique[index]]]
        lengths = [len(unique[index]) for index in batch.indices]
        for chunk in _chunks(branches, continuations, batch, reader):
            scores |= _score(reader, batch, lengths, chunk, continuations)
    return [scores[place] for place in range(len(contexts))]


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


def _chunks(
    branches: Sequence[tuple[int, int]], continuations: Sequence[Sequence[int]], batch: ContextBatch, reader: Streamer
) -> Iterator[list[list[tuple[int, int]]]]:
    """Yields, for each group of devices, continuations (place, row) of similar length that are scored together."""
    groups = data_parallel_size(reader.mesh)
    rows = batch.hidden.shape[0] // groups
    of_group = [
        sorted((one for one in branches if one[1] // rows == group), key=lambda one: len(continuations[one[0]]))
        for group in range(groups)
    ]
    while any(of_group):
        size = 0
        for neighbours in itertools.zip_longest(*of_group):
            longest = max(len(continuations[one[0]]) for one in neighbours if one)
            if size and size >= _most(_width(longest), batch, reader):
                break
            size += 1
        yield [of[:size] for of in of_group]
        of_group = [of[size:] for of in of_group]


def _score(
    reader: Streamer,
    batch: ContextBatch,
    lengths: Sequence[int],
    chunk: Sequence[Sequence[tuple[int, int]]],
    continuations: Sequence[Sequence[int]],
) -> dict[int, ContinuationScore]:
    groups, rows = len(chunk), batch.hidden.shape[0] // len(chunk)
    width = _width(max(len(continuations[place]) for of_group in chunk for place, _ in of_group))
    size = _most(width, batch, reader)
    tokens, positions = np.zeros((groups, size, width), np.int32), np.full((groups, size, width), -1, np.int32)
    row_of = np.zeros((groups, size), np.int32)
    for group, of_group in enumerate(chunk):
        for index, (place, row) in enumerate(of_group):
            ids = continuations[place]
            tokens[group, index, : len(ids)] = ids
            positions[group, index, : len(ids)] = lengths[row] + np.arange(len(ids))
            row_of[group, index] = row % rows
    log_probability, is_highest = map(np.asarray, _branch(
        reader.weights, batch.hidden, batch.cache, row_of.reshape(-1),
        tokens.reshape(-1, width), positions.reshape(-1, width), config=reader.config, mesh=reader.mesh,
    ))  # fmt: skip
    scores = {}
    for group, of_group in enumerate(chunk):
        for index, (place, _) in enumerate(of_group):
            at = group * size + index, slice(len(continuations[place]))
            total = log_probability[at].sum(dtype=np.float64)
            scores[place] = ContinuationScore(float(total), bool(is_highest[at].all()))
    return scores


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def _branch(
    weights: DecodingWeights,
    hidden: Float[Array, "rows dim"],
    cache: KVCache,
    row_of: Int[Array, "branches"],
    tokens: Int[Array, "branches width"],
    positions: Int[Array, "branches width"],
    *,
    config: ModelConfig,
    mesh: Mesh | None,
) -> tuple[Float[Array, "branches width"], Bool[Array, "branches width"]]:
    """Returns each token's log-probability, and whether no other has a higher one.

    Args:
      hidden, cache: of the contexts.
      row_of: for each branch its context's row, counted among the rows of its devices.
      tokens, positions: of the continuations, padded at the end with position -1.
    """
    last, branched = decoding.continue_prompts(hidden, cache, row_of, mesh)
    states = last[:, None]
    if tokens.shape[1] > 1:
        # The last token only has to be looked up; padding may be read, nothing attends to it.
        following, _ = decoding.decode(weights, tokens[:, :-1], positions[:, :-1], branched, config, mesh)
        states = jnp.concatenate([states, following], axis=1)
    logits = constrain(decoding.logits(weights, states), mesh, ("batch", None, "vocab"))
    logits = constrain(logits, mesh, ("batch", None, None))
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    scores = log_probabilities(logits, tokens, 1.0), chosen >= jnp.max(logits, axis=-1)
    return replicate(scores, mesh)


def _width(length: int) -> int:
    """Returns the length to which continuations are padded; its last token is not read."""
    return free_bucket(length - 1) + 1


def _most(width: int, batch: ContextBatch, reader: Streamer) -> int:
    """Returns how many continuations are scored together on each device; one number for a width and a cache's size."""
    slots, groups = batch.cache.positions.shape[1], data_parallel_size(reader.mesh)
    # Their caches are copies: four times those of the contexts, for four choices.
    rows = 4 * reader.config.scoring_tokens // slots
    fitting = max(1, min(rows, LOGITS_AT_ONCE // (width * reader.config.vocab_size)) // groups)
    return 1 << (fitting.bit_length() - 1)
