"""Two real processes of four emulated devices each, joined through `jax.distributed` on loopback; or one of eight."""

import contextlib
import dataclasses
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Started:
    """Processes under way and the files that they write their output to."""

    processes: tuple[subprocess.Popen, ...]
    outputs: tuple[pathlib.Path, ...]

    def wait(self, seconds: float = 240) -> list[int]:
        """The exit codes; raises with the outputs where one does not end in time."""
        deadline = time.monotonic() + seconds
        try:
            return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]
        except subprocess.TimeoutExpired:
            raise AssertionError("did not end in time:\n" + "\n".join(self.texts())) from None

    def texts(self) -> list[str]:
        """What each has written so far."""
        return [output.read_text(errors="replace") for output in self.outputs]


@contextlib.contextmanager
def started(
    count: int, arguments: Sequence[str], folder: pathlib.Path, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Started]:
    """Starts Python with the arguments in `count` processes of 8 / count devices; kills what is left at the end.

    Args:
      count: 1 or 2.
      arguments: of Python.
      folder: where their outputs go.
      variables: more of the environment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    processes, outputs = [], []
    for number in range(count):
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1",
            "JAX_NUM_CPU_DEVICES": str(8 // count), **variables,
        }  # fmt: skip
        if count > 1:
            environment |= {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(number),
            }
        outputs.append(folder / f"output_{number}.txt")
        with outputs[-1].open("w") as file:
            command = [sys.executable, *map(str, arguments)]
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file))
    try:
        yield Started(tuple(processes), tuple(outputs))
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
