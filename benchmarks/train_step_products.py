"""Times only the matrix products of a step, for comparison with the contestants of train_step.py.

Each product is timed by itself, in XLA, whose kernels our step runs, or in PyTorch at its default precision. Everything
else is left out (norms, rotations, softmax, SwiGLU, loss, optimizer), and so is reading operands that another operation
has evicted from the caches. Attention is counted as half of its products over all keys: chunks, as in
models/attention_xla.py, may be faster or slower. So the sum is an estimate of a step in which all else costs nothing,
and not a strict bound.
"""

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from benchmarks.train_step_sizes import SIZES, Size
from llama2_jax.sharding.machine import keep_freed_memory

GROUPS, GROUP_SECONDS = 7, 0.1


def main() -> None:
    """Times the products and prints their sum as the seconds of a step; there are no losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, help="not needed: the numbers multiplied do not matter")
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    arguments = parser.parse_args()
    keep_freed_memory()
    seconds = sum(
        count * seconds_of(LIBRARIES[arguments.library], function, *shapes)
        for count, function, *shapes in products(SIZES[arguments.size])
    )
    print(json.dumps({"losses": [], "seconds": [seconds]}))


def products(size: Size) -> Iterator[tuple[float, Callable, tuple[int, ...], tuple[int, ...]]]:
    """Yields how often a step runs each product, the product, and its operands' shapes; operands of either library.

    A weight's product is computed once forward and twice backward, for its input's gradient and for its own.
    Attention's two are over all keys and count half, since half of the keys precede a query; backward each runs twice.
    """
    model, tokens = size.model, size.tokens
    kv_dim = model.kv_heads * model.head_dim
    weights = [
        (2 * model.layers, model.dim, model.dim),
        (2 * model.layers, model.dim, kv_dim),
        (2 * model.layers, model.dim, model.ffn_hidden),
        (model.layers, model.ffn_hidden, model.dim),
        (1, model.dim, model.vocab_size),
    ]
    for count, inputs, outputs in weights:
        yield count, lambda x, w: x @ w, (tokens, inputs), (inputs, outputs)
        yield count, lambda g, w: g @ w.mT, (tokens, outputs), (inputs, outputs)
        yield count, lambda x, g: x.mT @ g, (tokens, inputs), (tokens, outputs)
    group = model.heads // model.kv_heads
    by_head = size.rows, model.kv_heads
    narrow, wide = (*by_head, group * size.length, model.head_dim), (*by_head, group * size.length, size.length)
    keys = (*by_head, size.length, model.head_dim)
    half = model.layers / 2
    # Scores, and the gradient of their softmax; the result, and the gradient of the queries; those of keys and values.
    yield 2 * half, lambda q, k: q @ k.mT, narrow, keys
    yield 2 * half, lambda p, v: p @ v, wide, keys
    yield 2 * half, lambda p, q: p.mT @ q, wide, narrow


def seconds_of(in_library: Callable, function: Callable, *shapes: tuple[int, ...]) -> float:
    """Returns the time of a product of random float32 matrices of these shapes, the median of groups of calls.

    A group is waited for as a whole: starting a call takes as long as a small product, and a step is started only once.
    """
    random = np.random.default_rng(0)
    run = in_library(function, *(random.standard_normal(shape, np.float32) for shape in shapes))
    run(1)
    calls = max(2, round(GROUP_SECONDS / _seconds(run, 1)))
    return statistics.median(_seconds(run, calls) for _ in range(GROUPS))


def _in_xla(function: Callable, *operands: np.ndarray) -> Callable[[int], object]:
    compiled, operands = jax.jit(function), jax.device_put(operands)
    return lambda calls: jax.block_until_ready([compiled(*operands) for _ in range(calls)])


def _in_pytorch(function: Callable, *operands: np.ndarray) -> Callable[[int], object]:
    import torch

    operands = [torch.from_numpy(operand) for operand in operands]
    return lambda calls: [function(*operands) for _ in range(calls)]


LIBRARIES = {"xla": _in_xla, "pytorch": _in_pytorch}


def _seconds(run: Callable[[int], object], calls: int) -> float:
    begun = time.perf_counter()
    run(calls)
    return (time.perf_counter() - begun) / calls


if __name__ == "__main__":
    main()
