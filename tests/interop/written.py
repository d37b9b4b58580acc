"""Some arrays, and a file of them written by one of our writers."""

import numpy as np


def some_arrays(dtype, **more):
    """Arrays of a few shapes, and of those that are asked for by name."""
    rng = np.random.default_rng(0)
    shapes = {"a.weight": (3, 5), "vector": (7,), **more}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def write_with(writer_type, path, arrays):
    """Writes the arrays, the last one first, since any order must do."""
    dtype = next(iter(arrays.values())).dtype
    writer = writer_type(path, {name: array.shape for name, array in arrays.items()}, dtype)
    for name in reversed(arrays):
        writer.write(name, arrays[name])
    writer.close()
