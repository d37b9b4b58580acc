"""The devices of a TPU slice that one does not have: enough to compile for it on any machine."""

import importlib.util
import os

import jax
from jax.experimental import topologies

_EXAMPLES = "v5e:4x4, v6e:8x8, v5p:4x4x4"


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
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except (jax.errors.JaxRuntimeError, ValueError, RuntimeError, NotImplementedError) as error:
        first_line = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"--topology={topology}: libtpu does not know this slice ({first_line}). "
            f"Give generation and shape in chips, such as {_EXAMPLES}"
        ) from error
