"""Settings of the process and the machine that make the same programs start sooner and run faster."""

import ctypes
import platform
import sys

import jax
from etils import epath

# From malloc.h; mallopt answers 1 where it took the value.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tells the C library to keep freed memory in the process; to be called before the first array is made.

    XLA on the CPU allocates its temporaries anew at every execution, and glibc gives large blocks back to the system
    each time: the page faults cost more than a third of a training step. One arena for all threads, since those of
    single threads are given back whatever the thresholds are. The price is that the process stays as large as it ever
    was.

    Returns:
      Whether it was done: on Linux with glibc only.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    taken = [libc.mallopt(*setting) for setting in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1))]
    return all(taken)


def enable_compilation_cache(folder: epath.PathLike) -> None:
    """Keeps compiled programs in a folder (local or gs://), so that a second run of the same work does not compile.

    Programs that compile faster than they are looked up are left out.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
