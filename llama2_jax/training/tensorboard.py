"""Event files for TensorBoard.

The library's own writer runs in a thread and gets its events from a queue: if a full disk ends the thread, the training
would wait for room in the queue forever. So events are written directly here.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping

from etils import epath

FLUSH_SECONDS = 10.0


class EventFile:
    """One file of scalars in a folder."""

    def __init__(self, folder: epath.Path, first_step: int | None):
        """
        Args:
          folder: created if absent.
          first_step: values of this step and later ones in older files there are hidden; None hides nothing.
        """
        # Imported here, so that a run without TensorBoard does not need it.
        with _without_torch():
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.proto.summary_pb2 import Summary
            from tensorboardX.record_writer import directory_check

        self._event, self._summary = Event, Summary
        directory_check(str(folder))
        self._writer = EventsWriter(str(folder / "events"))
        self._flushed = time.monotonic()
        if first_step is not None:
            self._writer.write_event(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the values of a step."""
        summary = self._summary(
            value=[self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        )
        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes buffered events and closes the file."""
        self._writer.close()


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Hides torch: tensorboardX imports it where it is installed, which takes 2 seconds, and nothing here needs it."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None
    try:
        yield
    finally:
        del sys.modules["torch"]
