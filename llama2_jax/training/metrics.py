"""Writes the metrics of a run: metrics.jsonl, TensorBoard, and W&B if that is wanted."""

import json
from collections.abc import Mapping

import jax
from etils import epath

from llama2_jax.training.atomic_files import write_atomically
from llama2_jax.training.tensorboard import EventFile
from llama2_jax.training.wandb_run import WandbRun


class MetricsWriter:
    """Writes rows `{"step": ..., name: value}` to `<folder>/metrics.jsonl`, to `<folder>/tensorboard/`, and to W&B.

    Every row is on disk when `write` returns; in an object store (gs://), which cannot append to a file, when `flush`
    or `close` does. With several processes only the first one writes.
    """

    def __init__(self, folder: epath.PathLike, wandb_project: str = ""):
        """
        Args:
          folder: the stage's.
          wandb_project: the project on W&B; "" is none.
        """
        self.folder = epath.Path(folder)
        self.path = self.folder / "metrics.jsonl"
        self._writes = jax.process_index() == 0
        self._file = None
        self._waiting: list[str] = []
        self._events: EventFile | None = None
        self._purge_step: int | None = None
        self._wandb = WandbRun(wandb_project, self.folder) if wandb_project else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a row: values after `step` steps. There may be several rows of the same step."""
        if not self._writes:
            return
        numbers = {name: float(value) for name, value in values.items()}
        self._waiting.append(json.dumps({"step": int(step)} | numbers) + "\n")
        if _can_append(self.path):
            self.flush()
        if self._events is None:
            self._events = EventFile(self.folder / "tensorboard", self._purge_step)
        self._events.write(int(step), numbers)
        if self._wandb is not None:
            self._wandb.write(int(step), numbers)

    def flush(self) -> None:
        """Writes all rows so far to disk; to be called before a checkpoint is saved, which assumes them there."""
        if not self._waiting:
            return
        rows, self._waiting = "".join(self._waiting), []
        self.folder.mkdir(parents=True, exist_ok=True)
        if not _can_append(self.path):
            self.path.write_text((self.path.read_text() if self.path.exists() else "") + rows)
            return
        if self._file is None:
            self._file = self.path.open("a")
        self._file.write(rows)
        self._file.flush()

    def truncate_after(self, step: int) -> None:
        """Drops the rows of later steps, which a resumed run will write again, and an incomplete last row.

        The file is replaced as a whole. TensorBoard gets an event that hides later steps.
        """
        self._purge_step = step + 1
        if not self._writes or not self.path.exists():
            return
        self.close()
        kept = [row for row in read_metrics(self.path) if row["step"] <= step]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def close(self) -> None:
        """Closes the files; `write` opens them again."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._wandb is not None:
            self._wandb.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            self.close()
        except OSError:
            # On a full disk a file that could not be written cannot be closed either: raise the first error.
            if kind is None:
                raise


def _can_append(path: epath.Path) -> bool:
    return "://" not in str(path)


def read_metrics(path: epath.PathLike) -> list[dict[str, float]]:
    """Returns the rows of a metrics.jsonl, without an incomplete last line, which a killed run leaves.

    Raises:
      ValueError: if any other line is not JSON, naming file and line.
    """
    rows = []
    for number, line in enumerate(epath.Path(path).read_text().splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not a JSON row: {line[:80]!r}; repair or remove the line") from error
    return rows
