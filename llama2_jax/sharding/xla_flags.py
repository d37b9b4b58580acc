"""The compiler's flags for each platform.

They are read once, when JAX starts its backend, and a name that the version does not know ends the process there. So
each flag has the versions of jaxlib that know it.
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Flag:
    """A compiler flag, for jaxlib versions (major, minor) from `since` on and before `until`."""

    name: str
    value: str
    since: tuple[int, int] = (0, 0)
    until: tuple[int, int] = (1000, 0)


GPU_FLAGS = (
    # Collectives are started early and awaited late, with computation between.
    Flag("xla_gpu_enable_latency_hiding_scheduler", "true"),
    # The weights of the next scanned layer are gathered, and the gradients of the last one scattered, while one is
    # computed. Later versions still parse the first spelling, but it no longer changes the default.
    Flag("xla_gpu_enable_pipelined_all_gather", "true", until=(0, 12)),
    Flag("xla_gpu_enable_pipelined_reduce_scatter", "true", until=(0, 12)),
    Flag("xla_gpu_enable_pipelined_all_reduce", "true", until=(0, 12)),
    Flag("xla_gpu_pipeline_all_gather", "on", since=(0, 12)),
    Flag("xla_gpu_pipeline_reduce_scatter", "on", since=(0, 12)),
    Flag("xla_gpu_pipeline_all_reduce", "on", since=(0, 12)),
    # For the same purpose: two iterations of the loop over layers have separate buffers, without a copy between them.
    Flag("xla_gpu_enable_while_loop_double_buffering", "true"),
    # Small collectives are combined up to the size of a layer's weights; combining more would leave nothing to overlap.
    Flag("xla_gpu_all_reduce_combine_threshold_bytes", str(2**30)),
    Flag("xla_gpu_all_gather_combine_threshold_bytes", str(2**27)),
    Flag("xla_gpu_reduce_scatter_combine_threshold_bytes", str(2**26)),
    # Weights that are split along different dimensions may be combined too.
    Flag("xla_gpu_enable_all_gather_combine_by_dim", "false"),
    Flag("xla_gpu_enable_reduce_scatter_combine_by_dim", "false"),
    # Large bfloat16 products use cuBLAS, which needs no search for tile sizes when a program is compiled.
    Flag("xla_gpu_enable_triton_gemm", "false"),
    # No CUDA graphs: each keeps its own memory, and launches hardly matter in steps of many milliseconds.
    Flag("xla_gpu_enable_command_buffer", ""),
)

# Collectives run during computation, fused with it. Without any one of these a v5e's program has no asynchronous gather
# of weights. libtpu 0.0.52 has them on by default, and its programs for v5p and v6e are the same without: they are here
# for versions with other defaults. The flag xla_tpu_enable_async_collective_fusion_fuse_all_gather is often added, but
# the compiler refuses it on all generations except v5e. Limits of fast memory (xla_tpu_scoped_vmem_limit_kib) differ by
# generation and are left to the user.
TPU_FLAGS = (
    Flag("xla_tpu_enable_async_collective_fusion", "true"),
    Flag("xla_tpu_overlap_compute_collective_tc", "true"),
    Flag("xla_enable_async_all_gather", "true"),
)

# Emulated devices wait for each other in collectives. Where the machine has fewer cores, and the cores have
# other work too, one may wait for minutes; after one minute XLA would abort the process.
CPU_FLAGS = (Flag("xla_cpu_collective_call_terminate_timeout_seconds", "1200"),)

# For each platform the environment variable and its flags.
PLATFORMS = {
    "cpu": ("XLA_FLAGS", CPU_FLAGS),
    "gpu": ("XLA_FLAGS", GPU_FLAGS),
    "tpu": ("LIBTPU_INIT_ARGS", TPU_FLAGS),
}

# The fraction of a GPU's memory that JAX allocates at the start; its default leaves a quarter unused. JAX refuses to
# start with both names set.
MEMORY_FRACTION, MEMORY_FRACTION_NAMES = "0.9", ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")

# A platform is available if one of these packages is installed; the CPU always is.
PLUGINS = {"cpu": ("jaxlib",), "gpu": ("jax_cuda12_plugin", "jax_cuda13_plugin"), "tpu": ("libtpu",)}


def set_xla_flags() -> dict[str, str]:
    """Sets the flags of the available platforms in this process; call it before JAX starts its backend.

    Returns:
      The variables that were set.
    """
    version = importlib.metadata.version("jaxlib")
    added: dict[str, str] = {}
    for platform in available_platforms(os.environ):
        added |= environment(platform, version, os.environ | added)
    os.environ.update(added)
    return added


def available_platforms(variables: Mapping[str, str]) -> list[str]:
    """Returns the platforms of the table for which programs may be compiled here.

    Args:
      variables: the process's environment. The GPU is left out if JAX_PLATFORMS does not list it. The TPU never is:
        programs can be compiled for one that is absent, and only libtpu reads its flags.
    """
    listed = {name for name in variables.get("JAX_PLATFORMS", "").split(",") if name}
    allowed = {"cpu": True, "gpu": not listed or bool(listed & {"gpu", "cuda"}), "tpu": True}
    return [
        platform
        for platform, packages in PLUGINS.items()
        if allowed[platform] and any(importlib.util.find_spec(package) for package in packages)
    ]


def environment(platform: str, jaxlib_version: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables to set for a platform ("cpu", "gpu" or "tpu"); flags that the user has set are kept.

    Raises:
      ValueError: if there are no flags for the platform.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"there are no XLA flags for platform {platform!r}; there are for {', '.join(PLATFORMS)}.")
    variable, table = PLATFORMS[platform]
    user_flags = variables.get(variable, "").strip()
    added: dict[str, str] = {}
    # A value that does not begin with a dash is the name of a file of flags, which is left unchanged.
    if not user_flags or user_flags.startswith("-"):
        set_by_user = {flag.split("=")[0].lstrip("-") for flag in user_flags.split()}
        version = tuple(int(part) for part in jaxlib_version.split(".")[:2])
        flags = [
            f"--{flag.name}={flag.value}"
            for flag in table
            if flag.since <= version < flag.until and flag.name not in set_by_user
        ]
        added[variable] = " ".join([*flags, user_flags]).strip()
    if platform == "gpu" and not any(name in variables for name in MEMORY_FRACTION_NAMES):
        added[MEMORY_FRACTION_NAMES[0]] = MEMORY_FRACTION
    return added
