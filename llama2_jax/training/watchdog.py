"""Ends a stalled run (a process that hangs, a collective that others never join) with a message."""

import faulthandler
import os
import sys
import threading
import time

# EX_TEMPFAIL of sysexits.h: worth another try.
STALLED_EXIT_CODE = 75

# A step has stalled if it takes this many times as long as the longest before it. On a machine that is slow for the
# model all steps may take longer than the timeout: they have not stalled.
TIMES_LONGEST = 3


class Watchdog:
    """Ends the process if no step is finished for too long.

    The first step compiles and may take any time. Evaluations and saves count as part of the step before them.
    """

    def __init__(self, seconds: float, name: str):
        """
        Args:
          seconds: how long a step may take, or TIMES_LONGEST times the longest before it if that is longer; 0: forever.
          name: of the training or map, for the message.
        """
        self._seconds, self._name = seconds, name
        self._done: int | None = None
        self._news = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def finished(self, step: int) -> None:
        """Notes a finished step."""
        self._done = step
        self._news.set()

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._seconds:
            self._thread.join()

    def _watch(self) -> None:
        interval = min(self._seconds / 10, 5.0)
        waited, longest, before = 0.0, 0.0, time.monotonic()
        while not self._closed.wait(interval):
            now = time.monotonic()
            # A process that was suspended and continued has not stalled: the time of the suspension is not counted.
            waited += min(now - before, 2 * interval)
            before = now
            if self._news.is_set():
                self._news.clear()
                waited, longest = 0.0, max(waited, longest)
            elif self._done is not None and waited > max(self._seconds, TIMES_LONGEST * longest):
                return self._stalled(waited)

    def _stalled(self, seconds: float) -> None:
        print(
            f"error: {self._name}: no step was finished for {seconds:.1f} s after step {self._done}: a process or "
            "a device hangs. Everything saved is kept, and the same command resumes from it; if a step may take "
            "longer, raise --step_timeout. The stacks of this process's threads:",
            file=sys.__stderr__,
            flush=True,
        )
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        os._exit(STALLED_EXIT_CODE)
