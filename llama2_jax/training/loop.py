"""The training loop: resume, step, log, evaluate, save, and stop where asked to or where a number is not finite."""

import dataclasses
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from tqdm import tqdm

from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.interruption import Interruption
from llama2_jax.training.metrics import MetricsWriter
from llama2_jax.training.progress import progress_bar
from llama2_jax.training.schedules import Schedule
from llama2_jax.training.state import Params, TrainState, abstract_state
from llama2_jax.training.step import Batch, Metrics, TrainStep
from llama2_jax.training.watchdog import Watchdog

HostBatch = Mapping[str, Any]


class Batches(Protocol):
    """An endless iterator of batches whose position can be saved (a Grain iterator, say)."""

    def __next__(self) -> HostBatch: ...

    def get_state(self) -> Any:
        """The position after the batches taken so far; JSON."""

    def set_state(self, state: Any) -> None:
        """Goes to a position."""


class NonFiniteError(RuntimeError):
    """A loss or gradient norm is NaN or infinite; the message names step, records and the file with the batch."""


def fit(
    state: TrainState,
    step: TrainStep,
    batches: Batches,
    *,
    steps: int,
    learning_rate: Schedule,
    checkpoints: Checkpoints,
    metrics: MetricsWriter,
    save_every: int,
    log_every: int,
    evaluate: Callable[[Params], Mapping[str, float]] | None = None,
    evaluate_every: int = 0,
    shard_batch: Callable[[dict[str, np.ndarray]], Batch] | None = None,
    description: str = "training",
    interruption: Interruption | None = None,
    step_timeout: float = 0.0,
) -> TrainState:
    """Trains up to `steps` steps in all, from the newest checkpoint if there is one.

    A run that was killed and started again ends with the same state as one that was not, on the CPU bit for bit: the
    checkpoint holds the data's position, and everything else depends on the state and the number of the step alone.

    Args:
      state: where training starts if there is no checkpoint. It is used up either way: donated to the first step, or
        freed to make room for the checkpoint's.
      step: from `build_train_step`.
      batches: dicts of arrays, at their start (the iterator, not the dataset). A batch may carry `ids`, one name a
        record, which stay on the host and are shown when something goes wrong with it.
      steps: the number of optimizer steps that the whole training has.
      learning_rate: the rate of a step, given the number of steps before it.
      checkpoints: where to resume from and to save to.
      metrics: where rows go; rows later than the checkpoint are dropped at a resume.
      save_every: a checkpoint at each multiple of so many steps (0: none of these), and at the end.
      log_every: a row of metrics at each multiple, and at the end.
      evaluate: measures of parameters, written as they are named; must not keep or change the parameters.
      evaluate_every: at each multiple, and at the end; 0 is never.
      shard_batch: puts a batch on the devices; by default it is left to the step.
      description: the name on the progress bar.
      interruption: where to look whether the run is to stop; it then stops behind the step under way, which is saved.
      step_timeout: after so many seconds without a finished step the process ends with a message; 0 is never.

    Returns:
      The state after `steps` steps.

    Raises:
      NonFiniteError: naming the step and the batch's records. The batch is written to
        `<metrics.folder>/bad_batch_<step>.npz` and the checkpoint before it is kept.
      InterruptedRunError: where it stopped because it was asked to.
      ValueError: where the batches end before the steps do.
    """
    interruption = interruption or Interruption()
    state, done = _resume(state, batches, checkpoints, metrics)
    watchdog = Watchdog(step_timeout, description)
    monitor = _Monitor(metrics, log_every, steps, progress_bar(description, done, steps, "step"), watchdog)

    def due(every: int, number: int) -> bool:
        return number == steps or (every > 0 and number % every == 0)

    with monitor.bar, watchdog, interruption.deferred():
        to_stop = interruption.in_any_process()
        for number in range(done + 1, steps + 1):
            batch = _next_batch(batches, number, steps)
            arrays = {name: array for name, array in batch.items() if name != "ids"}
            placed = shard_batch(arrays) if shard_batch else arrays
            state, results = step(state, placed, np.float32(learning_rate(number - 1)))
            monitor.started(number, results, batch)
            if evaluate is not None and evaluate_every and due(evaluate_every, number):
                monitor.catch_up()
                metrics.write(number, evaluate(state.params))
            stops, to_stop = to_stop(), interruption.in_any_process()
            if stops or due(save_every, number):
                # A state that is not finite must never become the newest checkpoint.
                monitor.catch_up()
                metrics.keep()
                checkpoints.save(number, state, batches.get_state(), {"description": description, "steps": steps})
            if stops or (number == steps and to_stop()):
                raise interruption.stopped(f"{description} is saved after step {number} of {steps}")
    return state


def _resume(
    state: TrainState, batches: Batches, checkpoints: Checkpoints, metrics: MetricsWriter
) -> tuple[TrainState, int]:
    done = checkpoints.latest_step()
    metrics.truncate_after(done or 0)
    if done is None:
        return state, 0
    abstract = abstract_state(state)
    jax.tree.map(lambda leaf: leaf.delete(), state)
    restored = checkpoints.restore(abstract, done)
    batches.set_state(restored.data)
    return restored.state, done


def _next_batch(batches: Iterator[HostBatch], number: int, steps: int) -> HostBatch:
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(
            f"the data ended after {number - 1} of {steps} steps: repeat it, or train for fewer steps"
        ) from None


@dataclasses.dataclass
class _Started:
    """A step that devices may still be at work on."""

    number: int
    results: Metrics
    batch: HostBatch


class _Monitor:
    """Reads each step's numbers once the next step is under way, so that devices never wait for the host."""

    def __init__(self, metrics: MetricsWriter, log_every: int, steps: int, bar: tqdm, watchdog: Watchdog):
        self.bar = bar
        self._watchdog = watchdog
        self._metrics = metrics
        self._log_every = log_every
        self._steps = steps
        self._last: _Started | None = None
        self._tokens = 0
        self._since: float | None = None

    def started(self, number: int, results: Metrics, batch: HostBatch) -> None:
        """Takes note of a step that was started, and finishes with the one before it."""
        self.catch_up()
        self._last = _Started(number, results, batch)

    def catch_up(self) -> None:
        """Waits for the last step started: checks, logs and shows its numbers."""
        if self._last is None:
            return
        last, self._last = self._last, None
        values = {name: float(value) for name, value in jax.device_get(last.results).items()}
        self._watchdog.finished(last.number)
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            _stop(last, values, self._metrics)
        shown = {"loss": f"{values['loss']:.4f}"}
        if self._since is None:
            # The first step compiles: the clock starts behind it.
            self._since = time.perf_counter()
        else:
            self._tokens += _count_tokens(last.batch)
            rate = self._tokens / max(time.perf_counter() - self._since, 1e-9)
            values["tokens_per_second"] = rate
            shown["tokens/s"] = f"{rate:,.0f}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()
        if last.number == self._steps or (self._log_every > 0 and last.number % self._log_every == 0):
            self._metrics.write(last.number, values)
            if "tokens_per_second" in values:
                self._tokens, self._since = 0, time.perf_counter()


def _count_tokens(batch: HostBatch) -> int:
    """Tokens that are not padding, where the batch says so."""
    if "segment_ids" in batch:
        return int(np.count_nonzero(np.asarray(batch["segment_ids"])))
    return int(np.size(batch["tokens"])) if "tokens" in batch else 0


def _stop(last: _Started, values: Mapping[str, float], metrics: MetricsWriter) -> None:
    path = metrics.folder / f"bad_batch_{last.number}.npz"
    file = io.BytesIO()
    np.savez(file, **{name: np.asarray(array) for name, array in last.batch.items()})
    if jax.process_index() == 0:
        metrics.folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.getvalue())
    raise NonFiniteError(
        f"step {last.number}: loss {values['loss']}, gradient norm {values['grad_norm']}. {_records(last.batch)} "
        f"The batch is in {path}. The checkpoint before it is kept: look at these records, or lower the learning rate "
        "and go on from there."
    )


def _records(batch: HostBatch, most: int = 20) -> str:
    ids = [str(name) for name in np.ravel(np.asarray(batch.get("ids", []), dtype=object))]
    if ids:
        rest = f" and {len(ids) - most} more" if len(ids) > most else ""
        return f"Its records: {', '.join(ids[:most])}{rest}."
    if "tokens" in batch:
        tokens = np.asarray(batch["tokens"])
        rows = tokens.reshape(-1, tokens.shape[-1])[:4, :8].tolist()
        return f"Its records have no ids; its first rows begin with the tokens {rows}."
    return f"Its records have no ids; its arrays: {', '.join(sorted(batch))}."
