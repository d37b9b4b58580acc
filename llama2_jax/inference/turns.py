"""Batched generation turn after turn: what a dialogue's cache holds of earlier turns is not computed again.

All rows write to the same slots, a block of the users' turns and then the answers' tokens; where a row has no token the
slot stays empty. When the slots run out, each row's tokens are moved to the front. If that is not enough, the cache
grows: it begins with half of the context's slots, since a token attends to all, empty or not. And if all slots are not
enough, because rows differ too much in length, the prompts are read from their beginning. `generate` answers prompts
that share nothing.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from llama2_jax.inference.consolidation import generation_weights
from llama2_jax.inference.generate import DecodedRows, Sample, Sampling, check_prompts, decode_rows
from llama2_jax.inference.stream import Streamer, shared_prefix
from llama2_jax.models import decoding
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.decoding import DecodingWeights
from llama2_jax.models.kv_cache import KVCache, empty_cache
from llama2_jax.sharding.axes import constrain
from llama2_jax.sharding.mesh import mesh_of

# Tokens are read in blocks of one of these sizes. The scores of a block's queries with all slots are in memory at once.
BLOCKS = (32, 64)


@dataclasses.dataclass(frozen=True)
class Dialogues:
    """What a model has read of a batch of dialogues. `answer_turn` donates the cache: continue with what it returns.

    Attributes:
      model: what answers.
      tokens: for each row the ids in the cache, in order.
      cache: their keys and values.
    """

    model: Streamer
    tokens: tuple[tuple[int, ...], ...]
    cache: KVCache


def begin(config: ModelConfig, params: Mapping, rows: int) -> Dialogues:
    """Returns `rows` dialogues of which nothing has been read; on a mesh the rows are split over it."""
    mesh = mesh_of(params)
    cache = _empty(config=config, rows=rows, slots=_slots_for(config.max_length // 2), mesh=mesh)
    return Dialogues(Streamer(config, generation_weights(config, params), mesh), ((),) * rows, cache)


def answer_turn(
    dialogues: Dialogues,
    prompts: Mapping[int, Sequence[int]],
    sampling: Sampling,
    key: Key[Array, ""],
    answer_ids: Mapping[int, int],
    eos_id: int,
) -> tuple[Dialogues, dict[int, Sample]]:
    """Samples the answers of a turn.

    Args:
      dialogues: what was read before; its cache is donated.
      prompts: by row, the ids of everything before the answer; rows that are not among them are left out, and may not
        be asked again.
      sampling: how tokens are sampled; one temperature for all.
      key: a token's randomness is a function of this key, the answer's id and the step, as in `generate`.
      answer_ids: by row.
      eos_id: the token that ends an answer.

    Returns:
      The dialogues with prompts and answers read, and the answers by row; a sample's prompt_index is its row.

    Raises:
      ValueError: if a prompt is empty or leaves no room for max_new_tokens.
    """
    model, rows = dialogues.model, len(dialogues.tokens)
    check_prompts([*prompts.values()], model.config.max_length, sampling.max_new_tokens)
    cache, hidden = _read(dialogues, prompts, sampling.max_new_tokens)
    decoded_rows = DecodedRows(
        positions=np.asarray([len(prompts.get(row, ())) for row in range(rows)], np.int32),
        temperature=np.full(rows, sampling.temperature, np.float32),
        answer_ids=np.asarray([answer_ids.get(row, 0) for row in range(rows)], np.int32),
        used=np.asarray([row in prompts for row in range(rows)]),
        eos_id=np.int32(eos_id),
        top_p=None if sampling.top_p == 1.0 else np.float32(sampling.top_p),
    )
    *decoded, _, cache = decode_rows(
        model.weights, hidden, cache, decoded_rows, key,
        config=model.config, steps=sampling.max_new_tokens, mesh=model.mesh,
    )  # fmt: skip
    tokens, logps, sizes, finished = map(np.asarray, decoded)
    samples = {
        row: Sample(row, tokens[row, : sizes[row]].copy(), bool(finished[row]), logps[row, : sizes[row]].copy())
        for row in prompts
    }
    known = tuple(
        (*prompts[row], *samples[row].tokens.tolist()) if row in prompts else () for row in range(rows)
    )  # fmt: skip
    return dataclasses.replace(dialogues, tokens=known, cache=cache), samples


def _read(
    dialogues: Dialogues, prompts: Mapping[int, Sequence[int]], new_tokens: int
) -> tuple[KVCache, Float[Array, "rows dim"]]:
    """Returns the cache with the prompts read, and the state of each one's last token."""
    model, rows, slots = dialogues.model, len(dialogues.tokens), _slots_for(dialogues.model.config.max_length)
    # The last token is always read: the next one is drawn from its state.
    kept = np.asarray(
        [
            min(shared_prefix(dialogues.tokens[row], prompts[row]), len(prompts[row]) - 1) if row in prompts else 0
            for row in range(rows)
        ],
        np.int32,
    )
    longest = max(len(prompt) - kept[row] for row, prompt in prompts.items())
    wanted = sum(blocks_of(longest)) + new_tokens
    cache = _forget(dialogues.cache, kept)
    if int(cache.index) + wanted > cache.positions.shape[1]:
        cache = _to_the_front(cache, kept, mesh=model.mesh)
    if int(cache.index) + wanted > cache.positions.shape[1] < slots:
        cache = _grown(cache, slots)
    if int(cache.index) + wanted > slots:
        kept = np.zeros(rows, np.int32)
        cache = _to_the_front(_forget(cache, kept), kept, mesh=model.mesh)
        longest = max(map(len, prompts.values()))
    hidden = np.zeros((rows, model.config.dim), model.config.compute_dtype)
    first = 0
    for size in blocks_of(longest):
        tokens, positions = np.zeros((rows, size), np.int32), np.full((rows, size), -1, np.int32)
        for row, prompt in prompts.items():
            block = prompt[kept[row] + first : kept[row] + first + size]
            tokens[row, : len(block)] = block
            positions[row, : len(block)] = kept[row] + first + np.arange(len(block))
        hidden, cache = read_block(
            model.weights, tokens, positions, cache, hidden, config=model.config, mesh=model.mesh
        )
        first += size
    return cache, hidden


def blocks_of(length: int) -> list[int]:
    """Returns the sizes of the blocks in which so many tokens are read."""
    whole, rest = divmod(int(length), BLOCKS[-1])
    return [BLOCKS[-1]] * whole + ([min(size for size in BLOCKS if size >= rest)] if rest else [])


def _slots_for(length: int) -> int:
    """Returns the slots for so many tokens: whole blocks are written, whose padding may extend beyond the last."""
    return length + max(BLOCKS)


@functools.partial(jax.jit, static_argnames=("config", "rows", "slots", "mesh"))
def _empty(*, config: ModelConfig, rows: int, slots: int, mesh: Mesh | None) -> KVCache:
    return decoding.constrain_cache(empty_cache(config, rows, slots), mesh)


@functools.partial(jax.jit, donate_argnames=("cache",))
def _forget(cache: KVCache, kept: Int[Array, " rows"]) -> KVCache:
    """Empties the slots of the tokens behind the first `kept` of each row."""
    return cache.replace(positions=jnp.where(cache.positions < kept[:, None], cache.positions, -1))


def _grown(cache: KVCache, slots: int) -> KVCache:
    """Returns the cache with so many slots, the new ones empty; an array at a time, so that little is there twice."""

    def grown(array: Array, axis: int, value: int = 0) -> Array:
        longer = _padded(array, axis=axis, added=slots - array.shape[axis], value=value)
        array.delete()
        return longer

    return KVCache(
        keys=tuple(grown(keys, axis=3) for keys in cache.keys),
        values=tuple(grown(values, axis=2) for values in cache.values),
        positions=grown(cache.positions, axis=1, value=-1),
        index=cache.index,
    )


@functools.partial(jax.jit, static_argnames=("axis", "added", "value"))
def _padded(array: Array, *, axis: int, added: int, value: int) -> Array:
    ends = [(0, added if axis == dimension else 0) for dimension in range(array.ndim)]
    return jnp.pad(array, ends, constant_values=value)


@functools.partial(jax.jit, static_argnames=("mesh",), donate_argnames=("cache",))
def _to_the_front(cache: KVCache, kept: Int[Array, " rows"], *, mesh: Mesh | None) -> KVCache:
    """Moves the tokens of each row, of which there are `kept`, to its first slots."""
    order = jnp.argsort(jnp.where(cache.positions < 0, cache.positions.shape[1], cache.positions), axis=1)
    moved = KVCache(
        keys=tuple(jnp.take_along_axis(keys, order[:, None, None, :], axis=3) for keys in cache.keys),
        values=tuple(jnp.take_along_axis(values, order[:, None, :, None], axis=2) for values in cache.values),
        positions=jnp.take_along_axis(cache.positions, order, axis=1),
        index=jnp.max(kept).astype(cache.index.dtype),
    )
    return decoding.constrain_cache(moved, mesh)


@functools.partial(jax.jit, static_argnames=("config", "mesh"), donate_argnames=("cache",))
def read_block(
    weights: DecodingWeights,
    tokens: Int[Array, "rows size"],
    positions: Int[Array, "rows size"],
    cache: KVCache,
    hidden: Float[Array, "rows dim"],
    *,
    config: ModelConfig,
    mesh: Mesh | None,
) -> tuple[Float[Array, "rows dim"], KVCache]:
    """Reads a block of tokens that follow those in the cache, which is donated.

    Args:
      weights: the model's, as decoding reads them.
      tokens, positions: of each row's next tokens, padded at the end with position -1.
      cache: with `size` free slots.
      hidden: each row's state before.

    Returns:
      The state of each row's last token in the block, or its state before if it has none; and the cache.
    """
    states, cache = decoding.decode(weights, tokens, positions, cache, config, mesh)
    last = jnp.take_along_axis(states, jnp.argmax(positions, axis=1)[:, None, None], axis=1)[:, 0]
    hidden = jnp.where(positions.max(axis=1, keepdims=True) >= 0, last, hidden)
    return constrain(hidden, mesh, ("batch", None)), cache
