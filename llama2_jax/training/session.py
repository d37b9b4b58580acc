"""What every training loop opens, resumes from, saves to and watches."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
from etils import epath

from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.interruption import InterruptedRunError, Interruption
from llama2_jax.training.metrics import MetricsWriter
from llama2_jax.training.state import TrainState, abstract_state
from llama2_jax.training.watchdog import Watchdog


class Position(Protocol):
    """Data whose position can be saved (a Grain iterator, say)."""

    def get_state(self) -> Any:
        """Returns the position after the items taken so far; JSON."""

    def set_state(self, state: Any) -> None:
        """Moves to a position."""


class Resumed(NamedTuple):
    """Where a training starts: its state, the checkpoint's step and meta; the last two None without a checkpoint."""

    state: TrainState
    step: int | None
    meta: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Session:
    """Checkpoints, metrics, watchdog and interruption of one training.

    Attributes:
      name: of the training, for messages and progress bars.
      checkpoints: what `resume` reads and `save` writes.
      metrics: where rows go.
      watchdog: notified of each finished step.
      interruption: asked at each step whether the run should stop.
    """

    name: str
    checkpoints: Checkpoints
    metrics: MetricsWriter
    watchdog: Watchdog
    interruption: Interruption

    def resume(self, state: TrainState, data: Position) -> Resumed:
        """Restores the newest checkpoint, if there is one, and drops the metrics of later steps.

        Args:
          state: where training starts without a checkpoint; with one it is freed first, to make room.
          data: moved to the position of the checkpoint.
        """
        step = self.checkpoints.latest_step()
        self.metrics.truncate_after(-1 if step is None else step)
        if step is None:
            return Resumed(state, None, None)
        abstract = abstract_state(state)
        jax.tree.map(lambda leaf: leaf.delete(), state)
        restored = self.checkpoints.restore(abstract, step)
        data.set_state(restored.data)
        return Resumed(restored.state, step, restored.meta)

    def save(self, step: int, state: TrainState, data: Position, meta: dict[str, Any]) -> None:
        """Saves a checkpoint after `step` steps, after writing all metrics so far."""
        self.metrics.flush()
        self.checkpoints.save(step, state, data.get_state(), meta)

    def stopped(self, step: int, steps: int, unit: str = "step") -> InterruptedRunError:
        """Returns the error to raise when the run was asked to stop and step `step` is saved."""
        return self.interruption.stopped(f"{self.name} is saved after {unit} {step} of {steps}")


@contextlib.contextmanager
def open_session(
    folder: epath.Path,
    name: str,
    interruption: Interruption,
    step_timeout: float,
    checkpoints: str = "checkpoints",
    wandb_project: str = "",
    kept_steps: Sequence[int] = (),
) -> Iterator[Session]:
    """Opens a training's session; a first signal to stop waits from here on until the loop asks for it.

    Args:
      folder: of the metrics and of the folder of checkpoints.
      name: of the training.
      interruption: where signals arrive.
      step_timeout: seconds without a finished step after which the process ends with a message; 0 is never.
      checkpoints: the name of the folder of checkpoints.
      wandb_project: the project on W&B that the metrics go to besides; "" is none.
      kept_steps: of which checkpoints are kept besides the newest ones.
    """
    folder = epath.Path(folder)
    with (
        Checkpoints(folder / checkpoints, kept_steps) as saved,
        MetricsWriter(folder, wandb_project) as metrics,
        Watchdog(step_timeout, name) as watchdog,
        interruption.deferred(),
    ):
        yield Session(name, saved, metrics, watchdog, interruption)
