"""The training loop: resume, step, log, evaluate, save, and stop when asked to or when a number is not finite."""

import dataclasses
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from tqdm import tqdm

from llama2_jax.training.metrics import MetricsWriter
from llama2_jax.training.progress import progress_bar
from llama2_jax.training.schedules import Schedule
from llama2_jax.training.session import Position, Session
from llama2_jax.training.state import Params, TrainState
from llama2_jax.training.step import Batch, Metrics, TrainStep
from llama2_jax.training.throughput import Throughput

HostBatch = Mapping[str, Any]


class Batches(Position, Protocol):
    """An endless iterator of batches whose position can be saved (a Grain iterator, say)."""

    def __next__(self) -> HostBatch: ...


class NonFiniteError(RuntimeError):
    """A loss or gradient norm is NaN or infinite; the message names step, records and the file with the batch."""


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How long a training lasts, and what happens when.

    Attributes:
      steps: the number of optimizer steps of the whole training.
      learning_rate: the rate of a step, given the number of steps before it.
      save_every: a checkpoint at each multiple of this number of steps (0: none of these), and at the end.
      log_every: a row of metrics at each multiple, and at the end.
      evaluate_every: an evaluation at each multiple, and at the end; 0 is never.
      throughput: what MFU is measured by; None logs only tokens per second.
      kept_steps: a checkpoint at each of these too; the session keeps them.
    """

    steps: int
    learning_rate: Schedule
    save_every: int
    log_every: int
    evaluate_every: int = 0
    throughput: Throughput | None = None
    kept_steps: tuple[int, ...] = ()


def fit(
    state: TrainState,
    step: TrainStep,
    batches: Batches,
    session: Session,
    settings: FitSettings,
    *,
    evaluate: Callable[[Params], Mapping[str, float]] | None = None,
    shard_batch: Callable[[dict[str, np.ndarray]], Batch] | None = None,
) -> TrainState:
    """Trains until `settings.steps` steps are done, from the newest checkpoint if there is one.

    A run that was killed and started again ends with the same state as one that was not, on the CPU bit for bit: the
    checkpoint has the data's position, and everything else depends only on the state and the number of the step.

    Args:
      state: where training starts without a checkpoint. It is consumed either way: donated to the first step, or freed
        to make room for the checkpoint's.
      step: from `build_train_step`.
      batches: dicts of arrays, at their start (the iterator, not the dataset). A batch may have `ids`, one name per
        record, which stay on the host and are shown when something goes wrong with it.
      session: checkpoints, metrics and what may stop the training.
      settings: how long, and what happens when.
      evaluate: measures of parameters, logged under their names; must not keep or change the parameters.
      shard_batch: puts a batch on the devices; by default the step does.

    Returns:
      The state after `settings.steps` steps.

    Raises:
      NonFiniteError: naming the step and the batch's records. The batch is written to
        `<metrics.folder>/bad_batch_<step>.npz` and the checkpoint before it is kept.
      InterruptedRunError: if the run was asked to stop; the current step is finished and saved first.
      ValueError: if the batches end before the steps do.
    """
    steps = settings.steps
    state, resumed, _ = session.resume(state, batches)
    done = resumed or 0
    monitor = _Monitor(session, settings, progress_bar(session.name, done, steps, "step"))

    def due(every: int, number: int) -> bool:
        return number == steps or (every > 0 and number % every == 0)

    with monitor.bar:
        to_stop = session.interruption.in_any_process()
        for number in range(done + 1, steps + 1):
            batch = _next_batch(batches, number, steps)
            arrays = {name: array for name, array in batch.items() if name != "ids"}
            sharded = shard_batch(arrays) if shard_batch else arrays
            state, results = step(state, sharded, np.float32(settings.learning_rate(number - 1)))
            monitor.started(number, results, batch)
            if evaluate is not None and settings.evaluate_every and due(settings.evaluate_every, number):
                monitor.catch_up()
                session.metrics.write(number, evaluate(state.params))
            stops, to_stop = to_stop(), session.interruption.in_any_process()
            if stops or number in settings.kept_steps or due(settings.save_every, number):
                # A state that is not finite must never become the newest checkpoint.
                monitor.catch_up()
                session.save(number, state, batches, {"description": session.name, "steps": steps})
            if stops or (number == steps and to_stop()):
                raise session.stopped(number, steps)
    return state


def _next_batch(batches: Iterator[HostBatch], number: int, steps: int) -> HostBatch:
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(
            f"the data ended after {number - 1} of {steps} steps: repeat it, or train for fewer steps"
        ) from None


@dataclasses.dataclass
class _Started:
    """A step that may still be running on the devices."""

    number: int
    results: Metrics
    batch: HostBatch


class _Monitor:
    """Reads each step's numbers after the next step has started, so that devices never wait for the host."""

    def __init__(self, session: Session, settings: FitSettings, bar: tqdm):
        self.bar = bar
        self._session = session
        self._settings = settings
        self._last: _Started | None = None
        self._tokens = 0
        self._since: float | None = None

    def started(self, number: int, results: Metrics, batch: HostBatch) -> None:
        """Notes a step that was started, and finishes the one before it."""
        self.catch_up()
        self._last = _Started(number, results, batch)

    def catch_up(self) -> None:
        """Waits for the last step started: checks, logs and shows its numbers."""
        if self._last is None:
            return
        last, self._last = self._last, None
        values = {name: float(value) for name, value in jax.device_get(last.results).items()}
        self._session.watchdog.finished(last.number)
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            _stop(last, values, self._session.metrics)
        shown = {"loss": f"{values['loss']:.4f}"}
        if self._since is None:
            # The first step compiles: the clock starts after it.
            self._since = time.perf_counter()
        else:
            self._tokens += _count_tokens(last.batch)
            speed = self._speed()
            values |= speed
            shown |= {"tokens/s": f"{speed['tokens_per_second']:,.0f}"}
            shown |= {"MFU": f"{speed['mfu']:.1%}"} if "mfu" in speed else {}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()
        log_every = self._settings.log_every
        if last.number == self._settings.steps or (log_every > 0 and last.number % log_every == 0):
            self._session.metrics.write(last.number, values)
            if "tokens_per_second" in values:
                self._tokens, self._since = 0, time.perf_counter()

    def _speed(self) -> dict[str, float]:
        """Returns tokens per second since the last row of metrics, and MFU if the chip's peak is known."""
        rate = self._tokens / max(time.perf_counter() - self._since, 1e-9)
        throughput = self._settings.throughput
        mfu = throughput.mfu(rate) if throughput else None
        return {"tokens_per_second": rate} | ({} if mfu is None else {"mfu": mfu})


def _count_tokens(batch: HostBatch) -> int:
    """Returns the number of tokens, without padding if the batch has `segment_ids`."""
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
        "and resume."
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
