"""A contestant of train_step.py: pretraining's step, built as in the stage, on the local devices."""

import argparse
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.train_step_sizes import LEARNING_RATE, SIZES, read_batches, time_steps
from llama2_jax.interop.huggingface import open_huggingface
from llama2_jax.interop.loading import load_params
from llama2_jax.pipeline.model_training import language_model_step
from llama2_jax.sharding.batches import shard_batch
from llama2_jax.sharding.machine import keep_freed_memory
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state


def main() -> None:
    """Times the step; or, with --matrix_rate, a large product of bfloat16 matrices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, help="the model and the batches, as train_step.py prepares them")
    parser.add_argument("--size", choices=SIZES)
    parser.add_argument("--matrix_rate", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()  # as main.py does, before the first array
    if arguments.matrix_rate:
        print(json.dumps({"flops_per_second": matrix_rate()}))
    else:
        run(arguments.folder, arguments.size)


def run(folder: pathlib.Path, size_name: str) -> None:
    """Trains on the folder's batches and prints the times."""
    size, mesh, optimizer = SIZES[size_name], make_mesh(data=-1, fsdp=1), OptimizerConfig()
    step = language_model_step(size.model, optimizer, 1, mesh)
    state = create_state(load_params(open_huggingface(folder), mesh), make_optimizer(optimizer))
    ones = np.ones((size.rows, size.length), np.int32)
    fixed = {"positions": ones * np.arange(size.length, dtype=np.int32), "segment_ids": ones, "loss_mask": ones}

    def one(tokens: np.ndarray) -> float:
        nonlocal state
        state, metrics = step(state, shard_batch({"tokens": tokens, **fixed}, mesh), np.float32(LEARNING_RATE))
        jax.block_until_ready(state)
        return float(metrics["loss"])

    time_steps(one, read_batches(folder), size.steps)


def matrix_rate(width: int = 8192, products: int = 50) -> float:
    """Returns FLOP/s of a chain of products of bfloat16 matrices [width, width]: the accelerator's best rate."""

    @jax.jit
    def chain(x, matrix):
        return jax.lax.fori_loop(0, products, lambda _, x: (x @ matrix) * width**-0.5, x)

    x, matrix = (jax.random.normal(key, (width, width), jnp.bfloat16) for key in jax.random.split(jax.random.key(0)))
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        chain(x, matrix).block_until_ready()
        seconds.append(time.perf_counter() - begun)
    return 2 * width**3 * products / min(seconds)


if __name__ == "__main__":
    main()
