"""Requests to stop (a scheduler's SIGTERM, Ctrl-C): a training saves first, everything else ends at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import jax

from llama2_jax.sharding.processes import in_any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class InterruptedRunError(RuntimeError):
    """A training stopped because it was asked to, with its state saved.

    Attributes:
      exit_code: that of a process ended by the signal, as shells report it: 143 for SIGTERM, 130 for SIGINT.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.exit_code = 128 + number


class Interruption:
    """Whether the run was asked to stop; never without `watched_signals`."""

    def __init__(self):
        self._lock = threading.Lock()
        self._trainings = 0
        self._signal = 0

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Defers a first signal, for a training that checks `in_any_process` after each step and saves."""
        self._count(1)
        try:
            yield
        except BaseException:
            self._count(-1)
            raise
        self._count(-1)
        if self._signal:
            _end_at_once(self._signal)

    def in_any_process(self) -> Callable[[], bool]:
        """Starts to find out whether any process was asked to stop; the function that it returns gives the answer.

        All processes must call it at the same point. The answer is that of the time of this call, the same in all
        processes; reading it a step later costs no waiting.
        """
        if jax.process_count() == 1:
            return lambda: bool(self._signal)
        return in_any(bool(self._signal))

    def stopped(self, what: str) -> InterruptedRunError:
        """Returns the error to raise when everything is saved; `what` says what was."""
        number = self._signal or signal.SIGTERM
        return InterruptedRunError(f"stopped by {_name(number)}: {what}", number)

    def ask(self, number: int) -> None:
        """Asks to stop, as a signal does; ends the process at once if no training is running, or the second time."""
        with self._lock:
            waits = self._trainings and not self._signal
            self._signal = number
        if not waits:
            _end_at_once(number)
        _say(f"{_name(number)}: stopping when this step is done and saved; a second signal ends at once")

    def _count(self, change: int) -> None:
        with self._lock:
            self._trainings += change


@contextlib.contextmanager
def watched_signals() -> Iterator[Interruption]:
    """Gives an interruption that SIGTERM and SIGINT ask to stop; to be used in the main thread.

    A thread reads the signals from a pipe: a Python handler would not be called while the main thread compiles or waits
    for devices.
    """
    interruption = Interruption()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    pipe_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handlers_before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    thread = threading.Thread(target=_watch, args=(reader, interruption), name="signals", daemon=True)
    thread.start()
    try:
        yield interruption
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(pipe_before)
        os.close(writer)
        thread.join()
        os.close(reader)


def _watch(reader: int, interruption: Interruption) -> None:
    while arrived := os.read(reader, 1):
        if arrived[0] in SIGNALS:
            interruption.ask(arrived[0])


def _end_at_once(number: int) -> None:
    """Ends the process wherever its main thread is; files are whole or absent at any moment."""
    _say(f"stopped by {_name(number)}: no training was running; the same command resumes this stage")
    sys.stdout.flush()
    os._exit(128 + number)


def _name(number: int) -> str:
    return signal.Signals(number).name


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
