"""Generation: sampled answers to prompts, in few compiled programs of fixed shapes.

Prompts are sorted by length and split into batches. The prompts of a batch are padded to one of few lengths and
prefilled once, whatever the number of samples of each; their keys and values are then repeated for the samples, and one
compiled loop decodes the batch until all rows have ended. The weights are converted once for all batches
(consolidation.py).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from llama2_jax.inference.batches import batches, generation_batch_size, make_prompt_batch, prompt_batch_size
from llama2_jax.inference.consolidation import generation_weights
from llama2_jax.inference.sampling import draw, uniforms
from llama2_jax.models import decoding
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.decoding import DecodingWeights
from llama2_jax.models.kv_cache import KVCache
from llama2_jax.sharding.axes import constrain, replicate
from llama2_jax.sharding.mesh import mesh_of

SHORTEST_BUCKET = 32


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are sampled.

    Attributes:
      temperature: divides the logits; 0 takes the most likely token. One for all prompts, or one for each.
      top_p: the nucleus (1.0: everything).
      max_new_tokens: the length at which an answer without an EOS is cut off.
    """

    temperature: float | Sequence[float] = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64

    def __post_init__(self):
        for temperature in np.atleast_1d(self.temperature).tolist():
            if not isinstance(temperature, int | float) or not 0 <= temperature < float("inf"):
                raise ValueError(f"sampling temperature is {temperature!r}; it must be 0 (greedy) or above.")
        if not isinstance(self.top_p, int | float | np.number) or not 0 < self.top_p <= 1:
            raise ValueError(f"sampling top_p is {self.top_p!r}; it must be above 0, and at most 1 (everything).")
        if not isinstance(self.max_new_tokens, int | np.integer) or self.max_new_tokens < 1:
            raise ValueError(f"sampling max_new_tokens is {self.max_new_tokens!r}; it must be an integer, at least 1.")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sampled answer.

    Attributes:
      prompt_index: the index of its prompt.
      tokens: int32 ids, including the EOS if it finished. Score and train on these ids.
      finished: whether it ended with the EOS.
      sampling_logps: float32, for each token log softmax(logits / temperature) as computed in decoding, before the
        nucleus; 0 at temperature 0.
    """

    prompt_index: int
    tokens: Int[np.ndarray, " length"]
    finished: bool
    sampling_logps: Float[np.ndarray, " length"]


def generate(
    model_config: ModelConfig,
    params: Mapping,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    key: Key[Array, ""],
    eos_id: int,
    samples_per_prompt: int = 1,
    prompt_ids: Sequence[int] | None = None,
) -> list[Sample]:
    """Samples answers to prompts.

    Args:
      model_config: the language model; generation_rows answers are decoded together, the last batch is padded.
      params: its parameters; if they are on a mesh, the rows are split over it.
      prompts: token ids, at least one each.
      sampling: how tokens are sampled.
      key: a token's randomness is a function of this key, the answer's id (prompt id * samples_per_prompt + sample)
        and the step: neither the batch size nor the other prompts change an answer.
      eos_id: the token that ends an answer.
      samples_per_prompt: answers to each prompt; samples in one batch share the prompt's prefill.
      prompt_ids: an id for each prompt, for a caller that splits its prompts over calls; by default their indices.

    Returns:
      The answers to the first prompt, to the second, and so on.

    Raises:
      ValueError: if a prompt is empty or leaves no room for max_new_tokens, or if the number of temperatures or
        prompt_ids is not that of the prompts.
    """
    check_prompts(prompts, model_config.max_length, sampling.max_new_tokens)
    temperatures = _temperatures(sampling, len(prompts))
    prompt_ids = range(len(prompts)) if prompt_ids is None else prompt_ids
    if len(prompt_ids) != len(prompts):
        raise ValueError(f"{len(prompt_ids)} prompt_ids for {len(prompts)} prompts: give one for each prompt.")
    answer_ids = [
        prompt_id * samples_per_prompt + sample for prompt_id in prompt_ids for sample in range(samples_per_prompt)
    ]
    mesh = mesh_of(params)
    batch_size = generation_batch_size(model_config, mesh, len(answer_ids))
    answers: dict[int, Sample] = {}
    weights = generation_weights(model_config, params) if prompts else None
    prompt_rows = prompt_batch_size(samples_per_prompt, batch_size, mesh)
    for batch in batches(prompts, samples_per_prompt, batch_size):
        row_prompts = [answer // samples_per_prompt for answer in batch]
        longest = model_config.max_length - sampling.max_new_tokens
        length = min(bucket(max(len(prompts[index]) for index in row_prompts)), longest)
        prompt_batch = make_prompt_batch(prompts, row_prompts, batch_size, prompt_rows, length, mesh)
        padding = batch_size - len(batch)
        hidden, cache = prefill_rows(
            weights, prompt_batch.tokens, prompt_batch.positions, prompt_batch.prompt_index,
            config=model_config, slots=length + sampling.max_new_tokens, mesh=mesh,
        )  # fmt: skip
        decoded_rows = DecodedRows(
            positions=np.asarray([len(prompts[index]) for index in row_prompts] + [1] * padding, np.int32),
            temperature=np.asarray([temperatures[index] for index in row_prompts] + [0.0] * padding, np.float32),
            answer_ids=np.asarray([answer_ids[answer] for answer in batch] + [0] * padding, np.int32),
            used=np.arange(batch_size) < len(batch),
            eos_id=np.int32(eos_id),
            top_p=None if sampling.top_p == 1.0 else np.float32(sampling.top_p),
        )
        decoded, logps, sizes, finished, *_ = decode_rows(
            weights, hidden, cache, decoded_rows, key,
            config=model_config, steps=sampling.max_new_tokens, mesh=mesh,
        )  # fmt: skip
        decoded, logps, sizes, finished = map(np.asarray, (decoded, logps, sizes, finished))
        for row, answer in enumerate(batch):
            size = sizes[row]
            answers[answer] = Sample(
                row_prompts[row], decoded[row, :size].copy(), bool(finished[row]), logps[row, :size].copy()
            )
    return [answers[answer] for answer in range(len(answers))]


def bucket(length: int) -> int:
    """Returns the length to which prompts are padded: the next power of two, so that few programs are compiled."""
    return max(SHORTEST_BUCKET, 1 << (length - 1).bit_length())


@functools.partial(jax.jit, static_argnames=("config", "slots", "mesh"))
def prefill_rows(
    weights: DecodingWeights,
    tokens: Int[Array, "prompts length"],
    positions: Int[Array, "prompts length"],
    prompt_index: Int[Array, " batch"],
    *,
    config: ModelConfig,
    slots: int,
    mesh: Mesh | None,
) -> tuple[Float[Array, "batch dim"], KVCache]:
    """Prefills prompts and returns, for each row of the batch, its prompt's last hidden state and its cache.

    Args:
      weights: the model's, as decoding reads them.
      tokens, positions: the prompts, padded at the end with position -1; on a mesh each is on its rows' devices.
      prompt_index: which prompt each row continues, counted among the prompts on its device (inference/batches.py).
        Ignored if there are as many prompts as rows: each row then continues its own.
    """
    hidden, cache = decoding.prefill(weights, tokens, positions, slots, config, mesh)
    last = jnp.take_along_axis(hidden, jnp.argmax(positions, axis=1)[:, None, None], axis=1)[:, 0]
    if len(tokens) == len(prompt_index):
        return last, cache
    return decoding.continue_prompts(last, cache, prompt_index, mesh)


@flax.struct.dataclass
class DecodedRows:
    """Where each row of a batch begins, and how its tokens are sampled.

    Attributes:
      positions: the position of each row's first new token.
      temperature: of each row.
      answer_ids: of each row; together with the key they determine its randomness.
      used: which rows are answers; the others are padding.
      eos_id: the token that ends an answer.
      top_p: the nucleus; None compiles a program without it.
    """

    positions: Int[Array, " batch"]
    temperature: Float[Array, " batch"]
    answer_ids: Int[Array, " batch"]
    used: Bool[Array, " batch"]
    eos_id: Int[Array, ""]
    top_p: Float[Array, ""] | None


@functools.partial(jax.jit, static_argnames=("config", "steps", "mesh"), donate_argnames=("cache",))
def decode_rows(
    weights: DecodingWeights,
    hidden: Float[Array, "batch dim"],
    cache: KVCache,
    rows: DecodedRows,
    key: Key[Array, ""],
    *,
    config: ModelConfig,
    steps: int,
    mesh: Mesh | None,
) -> tuple[Int[Array, "batch steps"], Float[Array, "batch steps"], Int[Array, " batch"], Array, Array, KVCache]:
    """Decodes until every row has ended, `steps` tokens at most.

    Args:
      weights: the model's, as decoding reads them.
      hidden, cache: from `prefill_rows`.
      rows: where each row begins, and how its tokens are sampled.
      key: the randomness.

    Returns:
      Tokens, their log-probabilities, the number of tokens of each row, whether it ended with the EOS, and for a caller
      that goes on the state of each row's last token [batch, dim] and the cache. (That it can be donated, and the loop
      works in place, takes that it is returned.)
    """
    batch = rows.answer_ids.shape[0]
    randomness = uniforms(key, rows.answer_ids, steps)

    def unfinished(state):
        step, _, ended, *_ = state
        return (step < steps) & ~jnp.all(ended)

    def advance(state):
        step, hidden, ended, tokens, logps, sizes, cache = state
        # Split weights must be gathered in every step: without the barrier the compiler would gather them all before
        # the loop and keep them.
        step_weights = weights if config.consolidate_weights else jax.lax.optimization_barrier((weights, step))[0]
        # The head stays split and the logits are gathered, so that all devices draw the same token.
        logits = constrain(decoding.logits(step_weights, hidden), mesh, ("batch", "vocab"))
        logits = constrain(logits, mesh, ("batch", None))
        token, logp = draw(logits, rows.temperature, randomness[:, step], rows.top_p)
        tokens = tokens.at[:, step].set(token)
        logps = logps.at[:, step].set(logp)
        sizes = sizes + ~ended
        ended = ended | (token == rows.eos_id)
        positions = (rows.positions + step)[:, None]
        hidden, cache = decoding.decode(step_weights, token[:, None], positions, cache, config, mesh)
        return step + 1, hidden[:, 0], ended, tokens, logps, sizes, cache

    state = (
        jnp.int32(0),
        hidden,
        ~rows.used,
        jnp.zeros((batch, steps), jnp.int32),
        jnp.zeros((batch, steps), jnp.float32),
        jnp.zeros(batch, jnp.int32),
        cache,
    )
    _, hidden, ended, tokens, logps, sizes, cache = jax.lax.while_loop(unfinished, advance, state)
    return *replicate((tokens, logps, sizes, ended), mesh), hidden, cache


def check_prompts(prompts: Sequence[Sequence[int]], max_length: int, max_new_tokens: int) -> None:
    """Raises a ValueError if a prompt is empty or leaves no room for max_new_tokens."""
    for index, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= max_length - max_new_tokens:
            raise ValueError(
                f"prompt {index} has {len(prompt)} tokens; with max_new_tokens={max_new_tokens} the model's "
                f"max_length={max_length} leaves room for 1 to {max_length - max_new_tokens}: shorten the prompt or "
                "lower max_new_tokens."
            )


def _temperatures(sampling: Sampling, prompts: int) -> Sequence[float]:
    """Returns the temperature of each prompt."""
    given = np.atleast_1d(sampling.temperature)
    if np.ndim(sampling.temperature) and len(given) != prompts:
        raise ValueError(f"{len(given)} temperatures for {prompts} prompts: give one for each prompt, or one for all.")
    return np.broadcast_to(given, prompts)
