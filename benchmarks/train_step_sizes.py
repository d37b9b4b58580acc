"""What the contestants of train_step.py share: the sizes, the learning rate, and the FLOPs of a step."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable

import numpy as np

from llama2_jax.models.config import ModelConfig, ffn_hidden, parameter_count

LEARNING_RATE = 1e-3
# The first losses are compared: that of the untrained model, and those after the first updates.
COMPARED_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Size:
    """A model and a batch.

    Attributes:
      model: the network.
      rows: sequences per batch.
      length: tokens per sequence.
      steps: how many steps a process times.
    """

    model: ModelConfig
    rows: int
    length: int
    steps: int

    @property
    def tokens(self) -> int:
        """Tokens per batch."""
        return self.rows * self.length

    @property
    def flops(self) -> int:
        """Floating-point operations of the matrix products of a step; a multiply-add counts as two.

        6 for each token and parameter of a matrix (2 forward, 4 backward; the embedding is looked up, not multiplied),
        and the attention's two products over the keys at or before a query, which are half of all.
        """
        model = self.model
        matrices = parameter_count(model) - model.vocab_size * model.dim - (2 * model.layers + 1) * model.dim
        return 6 * self.tokens * (matrices + model.layers * model.dim * self.length)


def _model(
    vocab: int, dim: int, layers: int, heads: int, kv_heads: int, hidden: int, length: int, **more
) -> ModelConfig:
    return ModelConfig(vocab, dim, layers, heads, kv_heads, hidden, length, **{"scan_layers": False, **more})


# 0.9M, 24M and 125M parameters, for the CPU in float32.
SIZES = {
    "S": Size(_model(512, 128, 4, 4, 2, ffn_hidden(128, 32), 256), rows=16, length=256, steps=30),
    "M": Size(_model(32000, 288, 6, 6, 6, 768, 256), rows=8, length=256, steps=8),
    "L": Size(_model(32000, 768, 12, 12, 4, 2048, 512), rows=2, length=512, steps=5),
    # For a smoke run.
    "quick": Size(_model(64, 32, 2, 4, 2, 64, 32), rows=2, length=32, steps=2),
    # 1.1B parameters, for one GPU of 80 GB or more, in bfloat16.
    "1b": Size(
        _model(
            32000, 2048, 22, 32, 4, 5632, 4096,
            compute_dtype="bfloat16", attention="cudnn", remat="dots", logits_chunk=256,
        ),
        rows=4, length=4096, steps=10,
    ),
}  # fmt: skip


def read_batches(folder: pathlib.Path) -> np.ndarray:
    """Returns the token ids of all batches, [batches, rows, length] int32."""
    return np.load(folder / "tokens.npy")


def time_steps(step: Callable[[np.ndarray], float], batches: np.ndarray, steps: int) -> None:
    """Runs steps on the batches in turn and prints, as a line of JSON, the first losses and the seconds of each step.

    Args:
      step: one training step on a batch of tokens; returns its loss after waiting for the whole step.
      batches: [batches, rows, length].
      steps: how many are timed, after `COMPARED_STEPS` that compile and warm up.
    """
    losses, seconds = [], []
    for number in range(COMPARED_STEPS + steps):
        begun = time.perf_counter()
        losses.append(step(batches[number % len(batches)]))
        seconds.append(time.perf_counter() - begun)
    result = {"losses": losses[:COMPARED_STEPS], "seconds": seconds[COMPARED_STEPS:], "first_seconds": seconds[0]}
    print(json.dumps(result))
