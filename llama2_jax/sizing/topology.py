"""The devices of a TPU slice that is not attached, for which programs can be compiled on any machine."""

import importlib.util
import os
import re

import jax
from jax.experimental import topologies

_EXAMPLES = "v5e:4x4, v6e:8x8, v5p:4x4x4"


def rings(topology: str) -> dict[str, list[bool]]:
    """Returns the compiler's option for the axes of a slice that are rings; empty if none is.

    The compiler assumes a slice without rings. It then gathers by an all-reduce of zeros, which sends twice as much and
    takes minutes longer to compile. v4 and v5p have rings on all axes of slices made of whole cubes of 4 x 4 x 4, v5e
    and v6e on an axis of 16 (the TPU pages of docs.cloud.google.com).
    """
    generation, _, shape = topology.partition(":")
    sizes = [int(size) for size in shape.split("x")] if re.fullmatch(r"\d+(x\d+)+", shape) else []
    if generation in ("v4", "v5p") and len(sizes) == 3 and all(size % 4 == 0 for size in sizes):
        return {"wrap": [True, True, True]}
    if generation in ("v5e", "v6e") and 16 in sizes:
        return {"wrap": [size == 16 for size in sizes] + [False] * (3 - len(sizes))}
    return {}


def slice_devices(topology: str) -> list[jax.Device]:
    """Returns the devices of a TPU slice, as described by the compiler; nothing can run on them.

    Call it before JAX looks for devices: from then on the process has only the CPU.

    Args:
      topology: generation and shape in chips, such as v5p:8x8x8.

    Raises:
      ValueError: if libtpu is not installed, or the slice does not exist.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"--topology={topology} needs the compiler for TPUs, which runs on any Linux machine: "
            f'pip install "jax[tpu]=={jax.__version__}"'
        )
    # No TPU is looked for, on the cloud's metadata server or in this machine, and other processes may compile at the
    # same time.
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "true"
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")  # prevents a warning
    jax.config.update("jax_platforms", "cpu")
    # Programs for an absent slice can be stored in the cache, but not read from it.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=topology, **rings(topology))
        return list(description.devices)
    except (jax.errors.JaxRuntimeError, ValueError, RuntimeError, NotImplementedError) as error:
        first_line = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"--topology={topology}: libtpu does not know this slice ({first_line}). "
            f"Give generation and shape in chips, such as {_EXAMPLES}"
        ) from error
