"""Pretraining text beside a policy's answers: PPO-ptx (InstructGPT, section 3.5), which keeps what pretraining knew.

A stage's `pretraining_mix` has the `coefficient` of the next-token loss, 0 for no text, and where it is above 0 the
text's `sources` and `batch_size`, the rows of the context that each of the policy's steps reads.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Shaped
from ml_collections import ConfigDict

from llama2_jax.data.pretraining import hold_out, pretraining_batches
from llama2_jax.pipeline.encoding import read_sources, source_weights
from llama2_jax.pipeline.runtime import Runtime
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.session import Position

Rows = dict[str, Shaped[np.ndarray, "rows length"]]


@dataclasses.dataclass(frozen=True)
class Positions:
    """Positions in several streams of data, saved and restored as one."""

    streams: Mapping[str, Position]

    def get_state(self) -> dict:
        """Returns the position of each stream; JSON."""
        return {name: stream.get_state() for name, stream in self.streams.items()}

    def set_state(self, state: Mapping) -> None:
        """Moves every stream to its position."""
        for name, stream in self.streams.items():
            stream.set_state(state[name])


def mix_problems(mix: ConfigDict) -> list[str]:
    """Returns what is wrong with a stage's `pretraining_mix`, each naming field, value and cure."""
    if mix.coefficient == 0:
        return []
    absent = [name for name in ("sources", "batch_size") if not mix.get(name)]
    return [
        f"pretraining_mix.coefficient={mix.coefficient}: wanted pretraining_mix.{name} too, or 0 for no text"
        for name in absent
    ]


def text_batches(mix: ConfigDict, tokenizer: Tokenizer, runtime: Runtime) -> Iterator[Rows] | None:
    """Returns batches of text, an iterator with get_state and set_state; None without text.

    What a pretraining of the same sources holds out is not among it.
    """
    if mix.coefficient == 0:
        return None
    documents, _ = hold_out({
        name: tokenizer.encode_many([record["text"] for record in records])
        for name, records in read_sources(mix.sources, runtime, "text").items()
    })  # fmt: skip
    # Optional sources may be absent.
    weights = {name: weight for name, weight in source_weights(mix.sources).items() if name in documents}
    return iter(
        pretraining_batches(
            documents, weights, runtime.model.max_length, mix.batch_size, runtime.seed,
            bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id,
        )
    )  # fmt: skip


def with_text(rollouts: Rows, text: Rows, row_multiple: int) -> Rows:
    """Returns a minibatch of packed rollouts with rows of text behind them.

    Each kind of row is masked out of the other's loss: `mask` is 0 in the text, and `text_mask`, which marks the tokens
    to be predicted, is 0 in the rollouts.

    Args:
      rollouts: from `Rollouts.minibatch`; a multiple of `row_multiple` rows.
      text: from `text_batches`, rows of the same length.
      row_multiple: the rows of the text are filled up to a multiple of it with empty ones.
    """
    added = -len(text["tokens"]) % row_multiple
    text = {name: np.pad(array, ((0, added), (0, 0))) for name, array in text.items()}
    text["text_mask"] = text.pop("loss_mask")
    absent = {name: np.zeros_like(text[name], shape=rollouts["tokens"].shape) for name in text.keys() - rollouts.keys()}
    rollouts = {**rollouts, **absent}
    absent = {name: np.zeros_like(rollouts[name], shape=text["tokens"].shape) for name in rollouts.keys() - text.keys()}
    text = {**text, **absent}
    return {name: np.concatenate([rows, text[name]]) for name, rows in rollouts.items()}
