"""The devices of a TPU slice that one does not have: enough to compile for it on any machine."""

import importlib.util
import os
import re

import jax
from jax.experimental import topologies

_EXAMPLES = "v5e:4x4, v6e:8x8, v5p:4x4x4"


def rings(topology: str) -> dict[str, list[bool]]:
    """Along which axes of a slice the links close to a ring, as the compiler is to be told; empty where none does.

    The compiler takes a slice to be without them. It then gathers by an all-reduce of zeros, which sends twice as much
    and takes minutes longer to compile. v4 and v5p close all axes of slices made of whole cubes of 4 x 4 x 4, v5e and
    v6e an axis of 16 (the TPU pages of docs.cloud.google.com).
    """
    generation, _, shape = topology.partition(":")
    sizes = [int(size) for size in shape.split("x")] if re.fullmatch(r"\d+(x\d+)+", shape) else []
    if generation in ("v4", "v5p") and len(sizes) == 3 and all(size % 4 == 0 for size in sizes):
        return {"wrap": [True, True, True]}
    if generation in ("v5e", "v6e") and 16 in sizes:
        return {"wrap": [size == 16 for size in sizes] + [False] * (3 - len(sizes))}
    return {}


def slice_devices(topology: str) -> list[jax.Device]:
    """The devices of a TPU slice, described by the compiler; nothing can run on them.

    To be called before JAX has looked for devices: from then on the process has the CPU alone.

    Args:
      topology: generation and shape in chips, such as v5p:8x8x8.

    Raises:
      ValueError: where libtpu is not installed, or the slice does not exist.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"--topology={topology} needs the compiler for TPUs, which runs on any Linux machine: "
            f'pip install "jax[tpu]=={jax.__version__}"'
        )
    # Nobody is asked for a TPU: not the cloud's metadata server, not a chip in this machine, and other processes that
    # compile at the same time are welcome.
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "true"
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")  # else it complains that it knows of none
    jax.config.update("jax_platforms", "cpu")
    # What is compiled for a slice that is not here can be stored, and not be read again.
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
