"""Streaming generation for chat: one dialogue, token by token (`generate` answers many prompts at once).

The cache has a slot for every position of the model's context, and slot i is token i's. A new prompt keeps the slots
of the prefix that it shares with the tokens before, so that a turn costs its own tokens and not the whole dialogue's.
Prompts are read in blocks of few sizes: three programs are compiled, whatever the lengths of the turns.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from llama2_jax.inference.consolidation import generation_weights
from llama2_jax.inference.generate import Sampling
from llama2_jax.inference.sampling import draw, uniforms
from llama2_jax.models import decoding
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.decoding import DecodingWeights
from llama2_jax.models.kv_cache import KVCache, empty_cache
from llama2_jax.sharding.axes import replicate
from llama2_jax.sharding.mesh import data_parallel_size, mesh_of

# A prompt is read in large blocks and its remainder in small ones, the last of them padded.
LARGE_BLOCK, SMALL_BLOCK = 256, 32


@dataclasses.dataclass(frozen=True)
class Streamer:
    """A language model ready for decoding.

    Attributes:
      config: the network.
      weights: its parameters as decoding reads them.
      mesh: the devices they are split over; None for one device.
    """

    config: ModelConfig
    weights: DecodingWeights
    mesh: Mesh | None


@dataclasses.dataclass(frozen=True)
class Context:
    """The tokens that a model has read. `read` and `stream` donate its arrays: continue with the context they return.

    Attributes:
      tokens: the ids in the cache, in order.
      cache: their keys and values.
      hidden: the state of the last of them, from which the next token is drawn; None if there is none.
    """

    tokens: tuple[int, ...]
    cache: KVCache
    hidden: Float[Array, "rows dim"] | None


def make_streamer(config: ModelConfig, params: dict[str, Any]) -> Streamer:
    """Converts a language model's parameters for decoding.

    Args:
      config: the network.
      params: its parameters. They are removed from the dict one by one, until it is empty, so that memory has to fit
        them once and not twice. Pass a copy of the dict to keep them.
    """
    mesh = mesh_of(params)
    return Streamer(config, generation_weights(config, params, consume=True), mesh)


def begin(streamer: Streamer) -> Context:
    """Returns an empty context."""
    # Whole blocks are written: the padding of the last one may extend beyond the last position.
    slots = streamer.config.max_length + LARGE_BLOCK
    make = functools.partial(_empty, config=streamer.config, slots=slots, mesh=streamer.mesh)
    return Context((), make(), None)


def read(streamer: Streamer, context: Context, tokens: Sequence[int]) -> Context:
    """Reads a prompt; the prefix that it shares with the context is not computed again.

    Args:
      streamer: the model.
      context: what was read before; its arrays are donated.
      tokens: the whole prompt.

    Raises:
      ValueError: if the prompt is empty or leaves no room for a token after it.
    """
    longest = streamer.config.max_length - 1
    if not 0 < len(tokens) <= longest:
        raise ValueError(
            f"a prompt of {len(tokens)} tokens; the model's context has room for 1 to {longest} and one more"
        )
    # The last token is always read: the next one is drawn from its state.
    start = min(shared_prefix(context.tokens, tokens), len(tokens) - 1)
    cache, hidden = context.cache, None
    while start < len(tokens):
        size = LARGE_BLOCK if len(tokens) - start >= LARGE_BLOCK else SMALL_BLOCK
        block = np.zeros(size, np.int32)
        count = min(size, len(tokens) - start)
        block[:count] = tokens[start : start + count]
        hidden, cache = _read_block(
            streamer.weights, cache, block, np.int32(start), np.int32(count),
            config=streamer.config, mesh=streamer.mesh,
        )  # fmt: skip
        start += count
    return Context(tuple(int(token) for token in tokens), cache, hidden)


def stream(
    streamer: Streamer, context: Context, sampling: Sampling, key: Key[Array, ""], eos_id: int
) -> Iterator[Context]:
    """Samples an answer and yields the context after each new token, which is the last of its `tokens`.

    The tokens are those of `generate` for the same key, in its first answer. Ends after the EOS, after
    sampling.max_new_tokens, or when the model's context is full; a caller may stop at any token before.

    Args:
      streamer: the model.
      context: from `read`; its arrays are donated.
      sampling: how tokens are sampled.
      key: the randomness.
      eos_id: the token that ends the answer.

    Raises:
      ValueError: if the context is empty.
    """
    if context.hidden is None:
        raise ValueError("nothing was read yet: an answer needs a prompt")
    config = streamer.config
    draws = _Draws(
        temperature=np.float32(sampling.temperature),
        top_p=None if sampling.top_p == 1.0 else np.float32(sampling.top_p),
        randomness=_randomness(key, steps=config.max_length),
    )
    for step in range(min(sampling.max_new_tokens, config.max_length - len(context.tokens))):
        token, hidden, cache = _next_token(
            streamer.weights, context.hidden, context.cache, np.int32(len(context.tokens)), np.int32(step), draws,
            config=config, mesh=streamer.mesh,
        )  # fmt: skip
        context = Context((*context.tokens, int(token)), cache, hidden)
        yield context
        if context.tokens[-1] == eos_id:
            return


@functools.partial(jax.jit, static_argnames=("config", "mesh"), donate_argnames=("cache",))
def _read_block(
    weights: DecodingWeights,
    cache: KVCache,
    block: Int[Array, " size"],
    start: Int[Array, ""],
    count: Int[Array, ""],
    *,
    config: ModelConfig,
    mesh: Mesh | None,
) -> tuple[Float[Array, "rows dim"], KVCache]:
    """Reads `count` tokens at positions from `start` on, and discards the cache's tokens from there on."""
    slots = jnp.arange(cache.positions.shape[1])
    cache = cache.replace(positions=jnp.where(slots < start, cache.positions, -1), index=start)
    offset = jnp.arange(block.shape[0])
    positions = jnp.where(offset < count, start + offset, -1)
    rows = cache.positions.shape[0]
    tokens, positions = (jnp.broadcast_to(array, (rows, block.shape[0])) for array in (block, positions))
    hidden, cache = decoding.decode(weights, tokens, positions, cache, config, mesh)
    return hidden[:, count - 1], cache


@flax.struct.dataclass
class _Draws:
    """How an answer's tokens are drawn; a top_p of None compiles a program without the nucleus."""

    temperature: Float[Array, ""]
    top_p: Float[Array, ""] | None
    randomness: Float[Array, " steps"]


@functools.partial(jax.jit, static_argnames=("config", "mesh"), donate_argnames=("cache",))
def _next_token(
    weights: DecodingWeights,
    hidden: Float[Array, "rows dim"],
    cache: KVCache,
    position: Int[Array, ""],
    step: Int[Array, ""],
    draws: _Draws,
    *,
    config: ModelConfig,
    mesh: Mesh | None,
) -> tuple[Int[Array, ""], Float[Array, "rows dim"], KVCache]:
    """Draws the token at a position and reads it."""
    rows = hidden.shape[0]
    logits = decoding.logits(weights, hidden)
    uniform = jnp.full(rows, draws.randomness[step])
    token, _ = draw(logits, jnp.full(rows, draws.temperature), uniform, draws.top_p)
    # Overwrites the prompt's padding.
    cache = cache.replace(index=position)
    hidden, cache = decoding.decode(weights, token[:, None], jnp.full((rows, 1), position), cache, config, mesh)
    return replicate(token, mesh)[0], hidden[:, 0], cache


@functools.partial(jax.jit, static_argnames=("config", "slots", "mesh"))
def _empty(*, config: ModelConfig, slots: int, mesh: Mesh | None) -> KVCache:
    # A mesh splits a batch's rows, so each part of the mesh computes the same dialogue.
    return decoding.constrain_cache(empty_cache(config, data_parallel_size(mesh), slots), mesh)


@functools.partial(jax.jit, static_argnames=("steps",))
def _randomness(key: Key[Array, ""], *, steps: int) -> Float[Array, " steps"]:
    return uniforms(key, jnp.zeros(1, jnp.int32), steps)[0]


def shared_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Returns the length of the longest common prefix."""
    pairs = zip(left, right, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
