"""One dialogue at a time, token by token: what a chat needs, where `generate` answers many prompts at once.

The cache has a slot for every position of the model's context, and slot i holds token i. A new prompt keeps the slots
of what it shares with the tokens before it, so that a turn costs its own tokens and not the dialogue's. Prompts are
read in blocks of few sizes: three programs are compiled, whatever the lengths of the turns.
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

# A prompt is read in blocks of the larger size and its rest in blocks of the smaller one, the last of them padded.
LARGE_BLOCK, SMALL_BLOCK = 256, 32


@dataclasses.dataclass(frozen=True)
class Streamer:
    """A language model laid out for decoding.

    Attributes:
      config: the network.
      weights: its parameters in the compute dtype, the layers apart.
      mesh: the devices they are split over; None for one device.
    """

    config: ModelConfig
    weights: DecodingWeights
    mesh: Mesh | None


@dataclasses.dataclass(frozen=True)
class Context:
    """What a model has read. Handing it to `read` or `stream` uses its arrays up: go on with what they give.

    Attributes:
      tokens: the ids that the cache holds, in order.
      cache: their keys and values.
      hidden: the state of the last of them, from which the next token is drawn; None where there is none.
    """

    tokens: tuple[int, ...]
    cache: KVCache
    hidden: Float[Array, "rows dim"] | None


def make_streamer(config: ModelConfig, params: dict[str, Any]) -> Streamer:
    """Lays a language model's parameters out for decoding.

    Args:
      config: the network.
      params: its parameters. They are taken out of the dict one after the other, which is empty in the end: so memory
        has to hold them once, and not twice. Who needs them further hands over a copy of the dict.
    """
    mesh = mesh_of(params)
    return Streamer(config, generation_weights(config, params, consume=True), mesh)


def begin(streamer: Streamer) -> Context:
    """A context that holds nothing yet."""
    # Blocks are written whole: padding of the last one may reach beyond the last position.
    slots = streamer.config.max_length + LARGE_BLOCK
    make = functools.partial(_empty, config=streamer.config, slots=slots, mesh=streamer.mesh)
    return Context((), make(), None)


def read(streamer: Streamer, context: Context, tokens: Sequence[int]) -> Context:
    """Takes in a prompt; what it shares with the start of the context is not computed again.

    Args:
      streamer: the model.
      context: used up.
      tokens: the whole prompt, from its first token on.

    Raises:
      ValueError: for a prompt that is empty or leaves no room for a token after it.
    """
    longest = streamer.config.max_length - 1
    if not 0 < len(tokens) <= longest:
        raise ValueError(
            f"a prompt of {len(tokens)} tokens; the model's context has room for 1 to {longest} and one more"
        )
    # The last token is always read: the next one is drawn from its state.
    start = min(_shared(context.tokens, tokens), len(tokens) - 1)
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
    """Answers what was read: the context after each new token, which is the last of its `tokens`.

    The same tokens as `generate` gives for the same key, as its first row. Ends after the EOS, after
    sampling.max_new_tokens, or where the model's context is full; a caller may stop at any token before.

    Args:
      streamer: the model.
      context: from `read`; used up.
      sampling: how tokens are chosen.
      key: the randomness.
      eos_id: the token that ends the answer.

    Raises:
      ValueError: for a context in which nothing was read.
    """
    if context.hidden is None:
        raise ValueError("nothing was read yet: an answer needs a prompt")
    config = streamer.config
    choice = _Choice(
        temperature=np.float32(sampling.temperature),
        top_p=None if sampling.top_p == 1.0 else np.float32(sampling.top_p),
        randomness=_randomness(key, steps=config.max_length),
    )
    for step in range(min(sampling.max_new_tokens, config.max_length - len(context.tokens))):
        token, hidden, cache = _next_token(
            streamer.weights, context.hidden, context.cache, np.int32(len(context.tokens)), np.int32(step), choice,
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
    block: Int[Array, "size"],
    start: Int[Array, ""],
    count: Int[Array, ""],
    *,
    config: ModelConfig,
    mesh: Mesh | None,
) -> tuple[Float[Array, "rows dim"], KVCache]:
    """Reads `count` tokens at positions from `start` on; what the cache held there and after is forgotten."""
    slots = jnp.arange(cache.positions.shape[1])
    cache = cache.replace(positions=jnp.where(slots < start, cache.positions, -1), index=start)
    number = jnp.arange(block.shape[0])
    positions = jnp.where(number < count, start + number, -1)
    rows = cache.positions.shape[0]
    tokens, positions = (jnp.broadcast_to(array, (rows, block.shape[0])) for array in (block, positions))
    hidden, cache = decoding.decode(weights, tokens, positions, cache, config, mesh)
    return hidden[:, count - 1], cache


@flax.struct.dataclass
class _Choice:
    """How an answer's tokens are chosen; a top_p of None compiles a program without the nucleus."""

    temperature: Float[Array, ""]
    top_p: Float[Array, ""] | None
    randomness: Float[Array, "steps"]


@functools.partial(jax.jit, static_argnames=("config", "mesh"), donate_argnames=("cache",))
def _next_token(
    weights: DecodingWeights,
    hidden: Float[Array, "rows dim"],
    cache: KVCache,
    position: Int[Array, ""],
    step: Int[Array, ""],
    choice: _Choice,
    *,
    config: ModelConfig,
    mesh: Mesh | None,
) -> tuple[Int[Array, ""], Float[Array, "rows dim"], KVCache]:
    """Draws the token at a position and reads it."""
    rows = hidden.shape[0]
    logits = decoding.logits(weights, hidden)
    uniform = jnp.full(rows, choice.randomness[step])
    token, _ = draw(logits, jnp.full(rows, choice.temperature), uniform, choice.top_p)
    # Behind the prompt lies its padding.
    cache = cache.replace(index=position)
    hidden, cache = decoding.decode(weights, token[:, None], jnp.full((rows, 1), position), cache, config, mesh)
    return replicate(token, mesh)[0], hidden[:, 0], cache


@functools.partial(jax.jit, static_argnames=("config", "slots", "mesh"))
def _empty(*, config: ModelConfig, slots: int, mesh: Mesh | None) -> KVCache:
    # A mesh splits a batch's rows; a single dialogue is then answered by each part of it alike.
    return decoding.constrain_cache(empty_cache(config, data_parallel_size(mesh), slots), mesh)


@functools.partial(jax.jit, static_argnames=("steps",))
def _randomness(key: Key[Array, ""], *, steps: int) -> Float[Array, "steps"]:
    return uniforms(key, jnp.zeros(1, jnp.int32), steps)[0]


def _shared(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences have in common from their start on."""
    pairs = zip(left, right, strict=False)
    return next((number for number, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right)))
