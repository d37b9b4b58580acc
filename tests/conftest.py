"""Tests run on the CPU with 8 emulated devices, on whatever machine they are started.

The few that can run on an accelerator do so where TEST_PLATFORMS asks for it.
"""

import atexit
import itertools
import os
import shutil
import subprocess
import tempfile
from importlib.metadata import version

os.environ["JAX_PLATFORMS"] = os.environ.get("TEST_PLATFORMS", "cpu")

# The tests start some 70 processes: each would compile the package's modules anew, for a second, where an environment
# asks Python to keep nothing.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Temporary files are in memory where there is plenty: checkpoints are flushed to the disk file by file (the tests of
# conversion took 26 s on a disk and 7 s so). TMPDIR, if set, is kept.
if "TMPDIR" not in os.environ and os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 8 << 30:
    os.environ["TMPDIR"] = tempfile.tempdir = "/dev/shm"

# Flags that are set already are kept.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "")

# Most of the suite's time is compiling. It takes less where LLVM does not optimize what it gets from XLA, gets it in
# one piece, and XLA emits fusions the old way, which newer versions do not have (17 tests took 27 s before and 15 s so,
# imports apart). XLA's own passes (sharding, fusion, collectives), which tests read, stay as they are.
if "xla_backend_optimization_level" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
if "xla_cpu_parallel_codegen_split_count" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"
if "xla_cpu_use_fusion_emitters" not in os.environ["XLA_FLAGS"] and version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

# Eight devices on few cores may wait for each other longer than the minute after which XLA aborts.
if "xla_cpu_collective_call_terminate" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_cpu_collective_call_terminate_timeout_seconds=1200"

# Often it is the same program: all processes of a run share what they compile.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="llama2_jax_tests_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import pytest

from tests.hub_server import HubServer

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture
def small_disk(tmp_path):
    """The folder of a disk of 3 MB."""
    if not shutil.which("mount"):
        pytest.skip("there is no command to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not allowed here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server on this machine in the place of the Hugging Face hub, and a cache of its own."""
    from huggingface_hub import close_session, constants

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub cache"))
        # A dropped connection loses less than a chunk.
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
        close_session()
        yield server
    close_session()


# What takes minutes: the tests of a folder or a file in one worker, since they share a run of the whole recipe or what
# they compile.
LONG = ("end_to_end", "test_rehearsal.py", "test_processes.py", "test_bring_your_own.py")


def pytest_collection_modifyitems(items):
    """Lets every worker begin with long tests: one that begins with them at the end leaves the others without work.

    Each gets a stretch of the tests in their order, all of the same length (see the scheduler below).
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [[item for item in items if name in item.path.parts] for name in LONG]
    others = iter([item for item in items if not set(LONG) & set(item.path.parts)])
    ordered, length = [], len(items) / workers
    for worker in range(workers):
        ordered += itertools.chain(*long[worker::workers])
        ordered += itertools.islice(others, max(0, round((worker + 1) * length) - len(ordered)))
    items[:] = [*ordered, *others]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One worker more than there are cores: some tests wait for processes that are killed, stopped or start anew."""
    del config
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each worker gets a stretch of tests in their order, and takes over the end of another's when it is done."""
    from xdist.scheduler import WorkStealingScheduling  # not there where tests are run in one process

    return WorkStealingScheduling(config, log)
