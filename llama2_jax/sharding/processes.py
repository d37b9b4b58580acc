"""Several processes that run one program: how they join, what only the first one does, and how they agree.

Every process runs the same code on the same numbers, so that their collectives match. Whatever may differ between
processes (the content of a shared folder, the answer of a person or of another program, a signal) is read by one of
them and broadcast to all. With a single process these functions do the same without any communication.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Result = TypeVar("Result")

COORDINATOR, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
HEARTBEAT_SECONDS = 100


class JoinError(ValueError):
    """The processes of a run cannot find each other; the message names what to set."""


class FirstProcessError(RuntimeError):
    """The first process failed while the others waited for it; the message is its error's."""


def join(heartbeat_seconds: int = HEARTBEAT_SECONDS, environment: Mapping[str, str] = os.environ) -> None:
    """Joins the run's other processes; call it once, before any use of devices.

    If the environment has JAX_COORDINATOR_ADDRESS (host:port of the process with number 0), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID (0, 1, ...), these are used; else JAX detects them itself, on a TPU pod and under SLURM.

    Args:
      heartbeat_seconds: a process without a heartbeat for so long is considered dead, and all the others end with a
        message.
      environment: where the variables are looked up.

    Raises:
      JoinError: if variables are missing or wrong; the message names them.
    """
    if not any(name in environment for name in (COORDINATOR, COUNT, NUMBER)):
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat_seconds)
        except ValueError as error:
            raise JoinError(
                f"--distributed: this is neither a TPU pod nor a SLURM job ({error}) Set in the environment of every "
                f"process {COORDINATOR} (host:port of process 0), {COUNT} and {NUMBER} (0, 1, ...)."
            ) from error
        return
    missing = [name for name in (COORDINATOR, COUNT, NUMBER) if not environment.get(name)]
    if missing:
        raise JoinError(
            f"--distributed: the environment lacks {', '.join(missing)}; wanted are {COORDINATOR} (host:port of "
            f"process 0), {COUNT} and {NUMBER} (0, 1, ...), or none of them on a TPU pod and under SLURM."
        )
    count, number = (_whole_number(environment, name) for name in (COUNT, NUMBER))
    if not 0 <= number < count:
        raise JoinError(f"--distributed: {NUMBER}={number} of {COUNT}={count}: wanted a number from 0 to {count - 1}.")
    if ":" not in environment[COORDINATOR]:
        raise JoinError(f"--distributed: {COORDINATOR}={environment[COORDINATOR]!r} has no port; wanted host:port.")
    jax.distributed.initialize(environment[COORDINATOR], count, number, heartbeat_timeout_seconds=heartbeat_seconds)


def _whole_number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise JoinError(f"--distributed: {name}={environment[name]!r} is not a whole number.") from None


def from_first(make: Callable[[], Result]) -> Result:
    """Calls a function in the first process only and returns its result in all of them; the others wait for it.

    All processes must call this, and `make` must not call it again.

    Args:
      make: returns a value that JSON can represent (tuples become lists), or None if it is called for its effect.

    Raises:
      FirstProcessError: in the other processes, if the first one's function raised.
    """
    if jax.process_count() == 1:
        return make()
    if jax.process_index():
        answer = json.loads(_broadcast(b""))
        if "error" in answer:
            raise FirstProcessError(answer["error"])
        return answer["result"]
    try:
        result = make()
        answer = json.dumps({"result": result})
    except Exception as error:
        _broadcast(json.dumps({"error": str(error) or repr(error)}).encode())
        raise
    _broadcast(answer.encode())
    return result


def in_any(flag: bool) -> Callable[[], bool]:
    """Starts a check whether a flag is set in any process; the returned function waits for the answer.

    The check is queued after the devices' current work: read a training step later, its answer takes no waiting. All
    processes must call this.
    """
    if jax.process_count() == 1:
        return lambda: flag
    devices = Mesh(np.asarray(jax.devices()), ("devices",))
    flags = jax.make_array_from_callback(
        (devices.size,),
        NamedSharding(devices, PartitionSpec("devices")),
        lambda index: np.full(len(range(*index[0].indices(devices.size))), flag),
    )
    answer = _any_of(devices)(flags)
    return lambda: bool(np.asarray(answer))


def leave(code: int) -> None:
    """Ends one of several processes immediately, after an error that the others may not have had.

    A normal exit would wait for the others, which wait for this one. They notice its missing heartbeats.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
        # The first process runs the coordinator of the others: give them time to report their own errors.
        time.sleep(2)
    os._exit(code)


@functools.lru_cache
def _any_of(devices: Mesh) -> Callable:
    return jax.jit(jnp.any, out_shardings=NamedSharding(devices, PartitionSpec()))


def _broadcast(text: bytes) -> bytes:
    """Returns the first process's text in all of them; padded to few sizes, each of which compiles a program."""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(max(1 << 10, 1 << (size - 1).bit_length()), np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded))[:size].tobytes()
