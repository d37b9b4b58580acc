"""Settings of the process and the machine with which the same programs start sooner and run faster."""

import ctypes
import logging
import platform
import sys

import jax
from etils import epath

# From malloc.h; mallopt returns 1 on success.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Makes the C library keep freed memory in the process; call it before the first array is made.

    XLA on the CPU allocates its temporaries at every execution, and glibc returns large blocks to the system each time:
    the page faults cost more than a third of a training step. All threads share one arena, since the arenas of single
    threads are returned whatever the thresholds are. The price is that the process never shrinks.

    Returns:
      Whether it was done: only on Linux with glibc.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    accepted = [libc.mallopt(*setting) for setting in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1))]
    return all(accepted)


def hide_absent_platforms() -> None:
    """Leaves out what JAX logs, at the level INFO, of each platform that the machine does not have."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)


def enable_compilation_cache(folder: epath.PathLike) -> None:
    """Caches compiled programs in a folder (local or gs://), so that a second run of the same work does not compile.

    Programs that compile faster than a look-up takes are not cached.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
