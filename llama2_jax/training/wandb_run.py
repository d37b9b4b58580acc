"""The metrics of a run on Weights & Biases, beside those on disk. Needs the extra "wandb".

Nothing there stops a training: what W&B cannot take is warned about once, and metrics.jsonl has it all.
"""

import uuid
from collections.abc import Mapping
from types import ModuleType

from absl import logging
from etils import epath


class WandbRun:
    """A stage's run on W&B; it begins with the first row, and goes on under its name when the stage resumes."""

    def __init__(self, project: str, folder: epath.Path):
        """
        Args:
          project: where the run is; the stage's folder and the one above it give its name and group.
          folder: the stage's; the run's id is kept in it.
        """
        self._project, self._folder = project, folder
        self._run = None
        self._works = True

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the values of a step. Of steps that W&B has already, after a resume, it keeps the first."""
        if not self._works:
            return
        try:
            if self._run is None:
                self._run = self._begin()
            self._run.log(dict(values), step=step)
        except Exception as error:
            self._works = False
            logging.warning("no metrics go to W&B any more: %s; metrics.jsonl in %s has them", error, self._folder)

    def close(self) -> None:
        """Ends the run; `write` goes on with it."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _begin(self):
        return import_wandb().init(
            project=self._project,
            group=self._folder.parent.name,
            name=f"{self._folder.parent.name}/{self._folder.name}",
            id=self._id(),
            resume="allow",
            dir=str(self._folder) if "://" not in str(self._folder) else None,
        )

    def _id(self) -> str:
        path = self._folder / "wandb_id"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(uuid.uuid4().hex)
        return path.read_text()


def import_wandb() -> ModuleType:
    """Returns the package.

    Raises:
      ValueError: if it is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise ValueError(f"--wandb needs the package wandb: pip install -e '.[wandb]' ({error})") from None
    return wandb
