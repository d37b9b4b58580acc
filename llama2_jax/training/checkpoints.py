"""Checkpoints of a training run, by Orbax: whole or not there, restored onto any mesh."""

import dataclasses
import json
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from llama2_jax.training.state import Params, TrainState

# A chunk is read and uncompressed as a whole: small enough that who reads one layer, or one device's part, reads
# not much more.
CHUNK_BYTES = 1 << 26


class CheckpointError(ValueError):
    """A checkpoint is not there or does not fit; the message says which and what to do."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint held: the state, the data's position in this process, and what was noted beside them."""

    state: TrainState
    data: Any
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, `<folder>/<step>/`, the newest few of them.

    Each has four separate items, so that one can be read without the others: `params`, `opt_state`, `data` (the
    iterator's position, one entry a process) and `meta` (JSON). A step's folder gets its name when all is written (on
    gs://, which can not rename, the file commit_success.txt); what has not got so far is never looked at.
    """

    def __init__(self, folder: epath.PathLike, keep: int = 2, asynchronous: bool = False):
        """
        Args:
          folder: where; made if absent.
          keep: how many of the newest checkpoints to keep.
          asynchronous: return from `save` before the files are written; `close` and the next `save` wait for them.
        """
        self.folder = epath.Path(folder)
        self._manager = _manager(
            self.folder,
            preservation_policy=ocp.checkpoint_managers.LatestN(keep),
            enable_async_checkpointing=asynchronous,
            # What a killed run left half written.
            cleanup_tmp_directories=True,
        )

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint; None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, data: Any = None, meta: dict[str, Any] | None = None) -> None:
        """Saves the state after `step` steps.

        Args:
          step: the number of optimizer steps done, which is `state.step`.
          state: may be donated to the next step as soon as this returns.
          data: the data iterator's `get_state()` in this process; JSON.
          meta: what else is to be known with it; JSON.
        """
        arrays = {"params": state.params, "opt_state": state.opt_state}
        note = {"meta": meta or {}, "arrays": {name: _describe(tree) for name, tree in arrays.items()}}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=_save_in_chunks(state.params),
                opt_state=_save_in_chunks(state.opt_state),
                data=ocp.args.JsonSave({"processes": _gather(data)}),
                meta=ocp.args.JsonSave(note),
            ),
            # Orbax would otherwise skip a step that it deems out of order, and say nothing.
            force=True,
        )

    def restore(self, abstract: TrainState, step: int | None = None) -> Restored:
        """Restores a checkpoint bit for bit, laid out over devices as `abstract` says (`abstract_state`).

        Args:
          abstract: shapes, dtypes and shardings; those of another mesh than the one that saved are fine.
          step: which checkpoint; the newest by default.

        Raises:
          CheckpointError: where there is none; where shapes or dtypes differ, naming each leaf; where the number of
            processes, each of which has its own place in the data, is another one.
        """
        step = _existing_step(self._manager, self.folder, step)
        note = _checked_note(self._manager, step, {"params": abstract.params, "opt_state": abstract.opt_state})
        found = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(abstract.params),
                opt_state=ocp.args.StandardRestore(abstract.opt_state),
                data=ocp.args.JsonRestore(),
            ),
        )
        positions = found["data"]["processes"]
        if len(positions) != jax.process_count():
            raise CheckpointError(
                f"{self.folder / str(step)} was written by {len(positions)} processes and this run has "
                f"{jax.process_count()}: the data's position is each process's own. Resume with as many processes."
            )
        counter = jnp.asarray(step, abstract.step.dtype)
        if abstract.step.sharding is not None:
            counter = jax.device_put(counter, abstract.step.sharding)
        state = TrainState(counter, found["params"], found["opt_state"])
        return Restored(state, positions[jax.process_index()], note["meta"])

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def restore_params(folder: epath.PathLike, abstract: Params, step: int | None = None) -> Params:
    """The parameters of a run's checkpoint, and nothing else of it, laid out as the abstract tree says.

    Args:
      folder: the folder of a `Checkpoints`.
      abstract: for each parameter a jax.ShapeDtypeStruct, with a sharding.
      step: which checkpoint; the newest by default.

    Raises:
      CheckpointError: where there is none, or where shapes or dtypes differ, naming each leaf.
    """
    folder = epath.Path(folder)
    if not folder.exists():
        raise CheckpointError(f"there is no folder of checkpoints at {folder}")
    with _manager(folder, create=False) as manager:
        step = _existing_step(manager, folder, step)
        _checked_note(manager, step, {"params": abstract})
        return manager.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(abstract)))["params"]


def _manager(folder: epath.Path, **options: Any) -> ocp.CheckpointManager:
    # Orbax tells about every file by absl's INFO; a person wants to read what the run says.
    logging.getLogger("absl").addFilter(_not_orbax_chatter)
    return ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(**options))


def _not_orbax_chatter(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or "orbax" not in record.pathname


def _existing_step(manager: ocp.CheckpointManager, folder: epath.Path, step: int | None) -> int:
    steps = sorted(manager.all_steps())
    if not steps:
        raise CheckpointError(f"there is no checkpoint in {folder}")
    if step is not None and step not in steps:
        raise CheckpointError(f"there is no checkpoint of step {step} in {folder}; there are: {steps}")
    return steps[-1] if step is None else step


def _checked_note(manager: ocp.CheckpointManager, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
    """The `meta` item; an error where its list of arrays is not the wanted one.

    Orbax casts to a wanted dtype without a word and names shapes without their leaf; so we compare ourselves.
    """
    note = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
    differences = [
        f"  {item}/{leaf}: the checkpoint has {found.get(leaf, 'none')}, wanted is {expected.get(leaf, 'none')}"
        for item, tree in wanted.items()
        for found, expected in [(note["arrays"][item], _describe(tree))]
        for leaf in sorted(found.keys() | expected.keys())
        if found.get(leaf) != expected.get(leaf)
    ]
    if differences:
        raise CheckpointError(
            f"the checkpoint {manager.directory / str(step)} does not fit the model or optimizer:\n"
            + "\n".join(differences)
        )
    return note


def _save_in_chunks(tree: Any) -> ocp.args.StandardSave:
    """Large leaves in chunks along their first axis, the layers: a reader of one layer then reads not much more."""
    chunked = ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES, shard_axes=(0,))
    return ocp.args.StandardSave(
        tree, save_args=jax.tree.map(lambda leaf: chunked if np.ndim(leaf) == 3 else ocp.SaveArgs(), tree)
    )


def _describe(tree: Any) -> dict[str, str]:
    """For each leaf its dtype and shape, such as `float32[4, 128, 128]`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


def _gather(data: Any) -> list[Any]:
    """The data positions of all processes, in order."""
    if jax.process_count() == 1:
        return [data]
    text = np.frombuffer(json.dumps(data).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(text.size)).ravel()
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: text.size] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:size])) for row, size in zip(rows, sizes, strict=True)]
