"""A small language model and ragged batches, quick to compile, for the tests of training."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.objectives.next_token import count_targets, next_token_loss
from llama2_jax.objectives.target_scores import score_targets

VOCAB, DIM, LAYERS, LENGTH = 24, 16, 2, 12


@dataclasses.dataclass(frozen=True)
class ToyModel:
    """Named and stacked as the real one is: embedding, two layers with a norm scale and a matrix, a head."""

    init: Callable[[int], Any]
    loss: Callable
    count: Callable
    axes: Any


def init(seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(0, 0.3, shape), jnp.float32)

    return {
        "trunk": {
            "embedding": normal(VOCAB, DIM),
            "layers": {"ffn_norm": jnp.ones((LAYERS, DIM)), "up": normal(LAYERS, DIM, DIM)},
        },
        "head": {"kernel": normal(DIM, VOCAB)},
    }


def loss(params: Any, batch: Any, counts: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    x = params["trunk"]["embedding"][batch["tokens"]]
    for layer in range(LAYERS):
        weights = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["trunk"]["layers"])
        x = x + jnp.tanh(x * weights["ffn_norm"] @ weights["up"])
    scores = score_targets(x, params["head"]["kernel"][None], jnp.roll(batch["tokens"], -1, axis=-1), 1.0, 0)
    return next_token_loss(scores, batch["loss_mask"], batch["segment_ids"], counts)


def count(batch: Any) -> jax.Array:
    return count_targets(batch["loss_mask"], batch["segment_ids"])


AXES = {
    "trunk": {"embedding": (None, "fsdp"), "layers": {"ffn_norm": (None, None), "up": (None, "fsdp", None)}},
    "head": {"kernel": ("fsdp", None)},
}


def make_batch(seed: int, rows: int = 16) -> dict[str, np.ndarray]:
    """Rows of very different numbers of targets, so that means of means are not the mean."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, LENGTH + 1, rows)
    lengths[: rows // 2] = 2
    inside = np.arange(LENGTH) < lengths[:, None]
    return {
        "tokens": rng.integers(0, VOCAB, (rows, LENGTH)).astype(np.int32),
        "segment_ids": inside.astype(np.int32),
        "loss_mask": inside.astype(np.int32),
    }


class Batches:
    """An iterator with a position; may be told to fail, or to hand out a batch that breaks the loss."""

    def __init__(self, dies_at: int = 0, broken_at: int = 0, end: int = 10**9, ids: bool = True):
        self.taken, self.dies_at, self.broken_at, self.end, self.ids = 0, dies_at, broken_at, end, ids

    def __next__(self) -> dict[str, Any]:
        self.taken += 1
        if self.taken == self.dies_at:
            raise KeyboardInterrupt
        if self.taken > self.end:
            raise StopIteration
        batch = make_batch(self.taken)
        batch["scale"] = np.full(batch["tokens"].shape, np.nan if self.taken == self.broken_at else 1.0, np.float32)
        return batch | ({"ids": [f"record-{self.taken}-{row}" for row in range(16)]} if self.ids else {})

    def get_state(self) -> dict[str, int]:
        return {"taken": self.taken}

    def set_state(self, state: dict[str, int]) -> None:
        self.taken = state["taken"]


@pytest.fixture(scope="session")
def toy() -> ToyModel:
    return ToyModel(init, loss, count, AXES)


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., dict[str, np.ndarray]]:
    return make_batch


@pytest.fixture(scope="session")
def batches() -> type[Batches]:
    return Batches
