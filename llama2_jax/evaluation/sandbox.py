"""Runs untrusted Python programs: `run_sandboxed("print(1)").passed`.

Each program gets an interpreter of its own, started afresh: this process is not forked, since its threads would not
survive that. Three layers hold a program, each of them for what the others let through:

1. The operating system's limits (sandbox_kernel.py): processor time, memory, the size of files, open files, no core
   dumps, no further processes or threads. The wall clock is watched from here, and the process group killed when its
   time is up. The environment names nothing but the program's folder, a fresh one that is deleted afterwards, and a
   fixed seed of hashes; stdin and the output are /dev/null. macOS does not limit memory, and no system limits the
   processes of root, whom the next layers bind.
2. The Linux kernel (sandbox_kernel.py): a network without interfaces (namespaces); no files but Python's own, the
   folders of its shared libraries and the program's folder (Landlock, from Linux 5.13); no system calls that make
   sockets or processes, signal other processes or change permissions (seccomp, on x86_64 and aarch64). This binds
   native code too, and root. A kernel or a container may refuse any of the three: `kernel_layers` says which hold.
3. An audit hook (sandbox_hook.py), which ends the process at the first event that is not known to be harmless: a file
   outside, a socket, a process, a module in native code. It holds everywhere, but only against Python code: a program
   that corrupts the interpreter's memory gets past it.

Not prevented: a program sees whether a file outside exists, and its size. It shares the interpreter with its own tests,
so one that is made to cheat can, with objects that are equal to everything for example. If you do not trust a model,
evaluate it in a container or a virtual machine as well.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LAYERS = ("network", "files", "calls")
_HERE = Path(__file__).resolve().parent
_KERNEL, _CHILD = (str(_HERE / f"sandbox_{name}.py") for name in ("kernel", "child"))


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
      seconds: wall-clock time, with the start of the interpreter.
      cpu_seconds: processor time.
      memory_bytes: address space, of which the interpreter needs some 30 MB.
      file_bytes: size of each file.
      open_files: at once, at least 16.
      writes: how often it may create, rename or remove a file or folder, or open a file for writing.

    Raises:
      ValueError: if one is too small.
    """

    seconds: float = 30.0
    cpu_seconds: int = 10
    memory_bytes: int = 1 << 30
    file_bytes: int = 1 << 20
    open_files: int = 256
    writes: int = 100

    def __post_init__(self):
        for name, least in (("seconds", 0), ("cpu_seconds", 1), ("memory_bytes", 1), ("open_files", 16)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: wanted at least {least}")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
      failure: "" if it ran to its end, otherwise "timeout", "memory", "forbidden: <what>" or "error: <exception>", of
        at most 200 characters.
    """

    failure: str

    @property
    def passed(self) -> bool:
        return not self.failure


DEFAULT_LIMITS = Limits()


def run_sandboxed(program: str, limits: Limits = DEFAULT_LIMITS) -> Outcome:
    """Runs a program with this Python's version and its standard library, less what needs sockets or processes.

    It passes if it runs to its end: neither `sys.exit(0)` nor `os._exit(0)` before it does. `__name__` is not
    "__main__", as in the evaluation of Chen et al. (2021).

    Raises:
      RuntimeError: if the sandbox cannot be started.
      NotImplementedError: on Windows.
    """
    return _run(program, limits)[1]


def run_all(programs: Sequence[str], limits: Limits = DEFAULT_LIMITS, workers: int | None = None) -> list[Outcome]:
    """Runs programs, several at a time, and returns their outcomes in order.

    Args:
      programs: each as for run_sandboxed.
      limits: of each.
      workers: how many run at a time; as many as there are processors if None.

    Raises:
      RuntimeError: if the sandbox cannot be started.
      NotImplementedError: on Windows.
    """
    with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(lambda program: run_sandboxed(program, limits), programs))


def kernel_layers() -> tuple[str, ...]:
    """Returns those of LAYERS that this kernel grants; without "files" and "calls" the audit hook is all there is."""
    started, _ = _run("", DEFAULT_LIMITS)
    return tuple(layer for layer in started.split(",") if layer)


def _run(program: str, limits: Limits) -> tuple[str, Outcome]:
    if os.name != "posix":
        raise NotImplementedError("there is no sandbox for programs on Windows: use Linux, WSL or macOS")
    # Only a program that ran to its end leads to these characters on the report.
    nonce = secrets.token_hex(16)
    with (
        tempfile.TemporaryDirectory(prefix="sandbox_") as folder,
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as report,
        tempfile.TemporaryFile() as complaints,
    ):
        given.write(f"{nonce} {limits.open_files} {limits.writes}\n{program}".encode("utf-8", "surrogatepass"))
        given.seek(0)
        # Files rather than pipes: they are bounded as all files of the program are, and nobody has to read along.
        code = _wait(limits, os.path.realpath(folder), given, report, complaints)
        report.seek(0)
        started, _, ending = report.read(4096).decode("utf-8", "replace").partition("\n")
        if code is not None and not started.startswith("started "):
            complaints.seek(0)
            said = complaints.read().decode("utf-8", "replace").strip() or "it printed nothing"
            raise RuntimeError(f"the sandbox did not start: {sys.executable} ended with {code}: {said[-500:]}")
    return started.removeprefix("started "), Outcome(_failure(code, ending, nonce))


def _wait(limits: Limits, folder: str, given, report, complaints) -> int | None:
    """Returns how the process ended, None if it was killed because its time was up."""
    process = subprocess.Popen(
        _command(limits), stdin=given, stdout=report, stderr=complaints, cwd=folder, start_new_session=True,
        # Sets of strings have one order, so a program that depends on it passes always or never.
        env={"HOME": folder, "TMPDIR": folder, "PYTHONHASHSEED": "0"},
    )  # fmt: skip
    end = time.monotonic() + limits.seconds
    try:
        # Popen.wait looks every 50 ms, about as long as a program takes.
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        return process.returncode
    finally:
        if process.returncode is None:
            with contextlib.suppress(PermissionError):  # macOS's answer if it has just ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _command(limits: Limits) -> list[str]:
    # Not a virtual environment's link to it, which would need the environment's files.
    python = [os.path.realpath(getattr(sys, "_base_executable", sys.executable)), "-P", "-s", "-S", "-B", "-X", "utf8"]
    bounds = {
        # At the first the process gets a signal that it may catch, at the second it is killed.
        "RLIMIT_CPU": (limits.cpu_seconds, limits.cpu_seconds + 1),
        "RLIMIT_AS": (limits.memory_bytes, limits.memory_bytes),
        "RLIMIT_FSIZE": (limits.file_bytes, limits.file_bytes),
        "RLIMIT_NOFILE": (limits.open_files, limits.open_files),
        "RLIMIT_CORE": (0, 0),
        # Counted for a user, not for a process, so no number but none means anything; root is not bound by it.
        "RLIMIT_NPROC": (0, 0),
    }
    listed = ",".join(f"{name}={soft}:{hard}" for name, (soft, hard) in bounds.items())
    return [*python, _KERNEL, listed, ",".join(LAYERS), *python, _CHILD]


def _failure(code: int | None, ending: str, nonce: str) -> str:
    if code is None or code == -signal.SIGXCPU:
        return "timeout"
    if code == 0 and ending == nonce:
        return ""
    if ending.startswith(("memory", "forbidden: ", "error: ")):
        return ending[:200]
    if code < 0:
        return f"error: killed by {signal.Signals(-code).name}"
    return f"error: exited with status {code} before its end"
