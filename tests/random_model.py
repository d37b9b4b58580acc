"""Models of random weights, in memory and on disk, for tests of what reads and writes models."""

import functools
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from llama2_jax.interop.checkpoint import Checkpoint, parameter_shapes
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import init_language_model
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.model_folder import save_model_description
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state

MULTI_HEAD = ModelConfig(vocab_size=64, dim=32, layers=3, heads=4, kv_heads=4, ffn_hidden=56, max_length=512)
GROUPED = ModelConfig(vocab_size=96, dim=48, layers=2, heads=6, kv_heads=2, ffn_hidden=80, max_length=512)
# Sizes that eight files can share.
FOR_EIGHT = ModelConfig(vocab_size=40, dim=64, layers=2, heads=16, kv_heads=8, ffn_hidden=72, max_length=64)


def random_arrays(config: ModelConfig, head: str = "language", seed: int = 0) -> dict[str, np.ndarray]:
    """Float32 parameters by name: norms about 1, matrices large enough that every part of the network matters."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(1, 0.2, shape) if name.endswith("norm") else rng.normal(0, 0.15, shape)).astype(np.float32)
        for name, shape in parameter_shapes(config, head).items()
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def sharpened_params(
    config: ModelConfig, init: Callable = init_language_model, factor: float = 3, noise: float = 0.1
) -> dict:
    """A fresh model with larger weights, so that contexts matter and answers end at different steps."""
    fresh = init(config, jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 32))
    return jax.tree.map(lambda x: factor * x + noise * jax.random.normal(next(keys), x.shape), fresh)


def as_tree(arrays: dict[str, np.ndarray]) -> dict:
    """The same as the nested dictionary that a model is applied with."""
    tree: dict = {}
    for name, array in arrays.items():
        *rooms, last = name.split("/")
        inner = tree
        for room in rooms:
            inner = inner.setdefault(room, {})
        inner[last] = array
    return tree


def in_memory(
    config: ModelConfig, arrays: dict[str, np.ndarray], head: str = "language", tokenizer: pathlib.Path | None = None
) -> Checkpoint:
    """A checkpoint that reads from arrays."""

    def read(name, layer=None, index=None):
        array = arrays[name] if layer is None else arrays[name][layer]
        return array if index is None else array[index]

    dtype = next(iter(arrays.values())).dtype
    return Checkpoint("orbax", pathlib.Path("in_memory"), config, head, dtype, tokenizer, read)


def train_like(
    folder: pathlib.Path, config: ModelConfig, arrays: dict[str, np.ndarray], head: str = "language"
) -> None:
    """Leaves a model folder as a stage of training does."""
    params = jax.tree.map(jax.numpy.asarray, as_tree(arrays))
    save_model_description(folder, config, head)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(7, create_state(params, make_optimizer(OptimizerConfig())))


def assert_same(checkpoint: Checkpoint, arrays: dict[str, np.ndarray]) -> None:
    """Every parameter of the checkpoint is the array, bit for bit."""
    assert parameter_shapes(checkpoint.config, checkpoint.head).keys() == arrays.keys()
    for name, array in arrays.items():
        if name.startswith("trunk/layers/"):
            for layer, wanted in enumerate(array):
                np.testing.assert_array_equal(checkpoint.read(name, layer), wanted, err_msg=name, strict=True)
        else:
            np.testing.assert_array_equal(checkpoint.read(name), array, err_msg=name, strict=True)
