"""Generation that ends where its text does: at a stop string, say, which is seen only in the text.

Rows are decoded a few steps at a time, and those that have ended are looked at in between; a batch ends with its last
row, and not after as many steps as an answer may have.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Array, Key

from llama2_jax.inference.contexts import ContextBatch, make_reader, read_contexts
from llama2_jax.inference.generate import DecodedRows, Sample, Sampling, check_prompts, decode_rows
from llama2_jax.inference.stream import Streamer
from llama2_jax.models.config import ModelConfig

STEPS = 16


def generate_until(
    config: ModelConfig,
    params: Mapping,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    key: Key[Array, ""],
    eos_id: int,
    has_ended: Callable[[int, Sequence[int]], bool],
    prompt_ids: Sequence[int] | None = None,
) -> list[Sample]:
    """Samples an answer to each prompt.

    Prompts that begin alike share the reading of what they share (contexts.py).

    Args:
      config: the language model.
      params: its parameters; if they are on a mesh, rows are split over it.
      prompts: token ids, at least one each.
      sampling: how tokens are sampled; one temperature for all.
      key: a token's randomness is a function of this key, the prompt's id and the step.
      eos_id: the token that ends an answer.
      has_ended: `has_ended(prompt, tokens)` says whether an answer needs no more tokens. It is asked after every few
        of them, so an answer may have some more.
      prompt_ids: an id for each prompt, for a caller that splits its prompts over calls; by default their indices.

    Returns:
      The answers, in the order of the prompts; one is finished if it ended with the EOS or `has_ended`.

    Raises:
      ValueError: if a prompt is empty or leaves no room for max_new_tokens.
    """
    check_prompts(prompts, config.max_length, sampling.max_new_tokens)
    samples: dict[int, Sample] = {}
    if not prompts:
        return []
    reader = make_reader(config, params)
    answer_ids = range(len(prompts)) if prompt_ids is None else prompt_ids
    # Whole blocks of steps are written.
    free = -(-sampling.max_new_tokens // STEPS) * STEPS
    for batch in read_contexts(reader, prompts, free):
        samples |= _answer(reader, batch, prompts, sampling, key, eos_id, has_ended, answer_ids)
    return [samples[index] for index in range(len(prompts))]


def _answer(
    reader: Streamer,
    batch: ContextBatch,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    key: Key[Array, ""],
    eos_id: int,
    has_ended: Callable[[int, Sequence[int]], bool],
    answer_ids: Sequence[int],
) -> dict[int, Sample]:
    rows, (hidden, cache) = batch.hidden.shape[0], (batch.hidden, batch.cache)
    padding = [0] * (rows - len(batch.indices))
    lengths = np.asarray([len(prompts[index]) for index in batch.indices] + padding, np.int32)
    ids = np.asarray([*(answer_ids[index] for index in batch.indices), *padding], np.int32)
    going = np.arange(rows) < len(batch.indices)
    finished = np.zeros(rows, bool)
    parts: list[list[np.ndarray]] = [[] for _ in range(rows)]
    logps: list[list[np.ndarray]] = [[] for _ in range(rows)]
    for first in range(0, sampling.max_new_tokens, STEPS):
        decoded_rows = DecodedRows(
            positions=lengths + np.int32(first),
            temperature=np.full(rows, sampling.temperature, np.float32),
            answer_ids=ids,
            used=going,
            eos_id=np.int32(eos_id),
            top_p=None if sampling.top_p == 1.0 else np.float32(sampling.top_p),
        )
        *decoded, hidden, cache = decode_rows(
            reader.weights, hidden, cache, decoded_rows, jax.random.fold_in(key, first),
            config=reader.config, steps=STEPS, mesh=reader.mesh,
        )  # fmt: skip
        tokens, new_logps, sizes, ended = map(np.asarray, decoded)
        for row in np.flatnonzero(going):
            size = min(sizes[row], sampling.max_new_tokens - first)
            parts[row].append(tokens[row, :size])
            logps[row].append(new_logps[row, :size])
            whole = size == sizes[row]
            finished[row] = (whole and ended[row]) or has_ended(
                batch.indices[row], [int(token) for part in parts[row] for token in part]
            )
        going = going & ~finished
        if not going.any():
            break
    return {
        index: Sample(index, np.concatenate(parts[row]), bool(finished[row]), np.concatenate(logps[row]))
        for row, index in enumerate(batch.indices)
    }
