"""Checkpoints of a training run, by Orbax: whole or not there, restored onto any mesh."""

import dataclasses
import errno
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from llama2_jax.sharding.processes import from_first
from llama2_jax.training.checkpoint_folder import CheckpointError, check_path, check_whole, tidy
from llama2_jax.training.manifest import write_manifest
from llama2_jax.training.state import Params, TrainState

# A chunk is read and uncompressed as a whole: small enough that reading one layer, or one device's part, reads little
# more than that.
CHUNK_BYTES = 1 << 26

# Per run; the second newest is kept in case the newest is damaged.
KEEP_NEWEST = 2


class DiskFullError(OSError):
    """The disk was too full to save a checkpoint; the message names the path and the checkpoint that is kept."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """The contents of a checkpoint: the state, the data's position, and the meta saved with them."""

    state: TrainState
    data: Any
    meta: dict[str, Any]


class Checkpoints:
    """The newest checkpoints of one run, `<folder>/<step>/`.

    Each has four separate items, so that one can be read without the others: `params`, `opt_state`, `data` (the
    iterator's position, the same in all processes) and `meta` (JSON), and a list of all files (manifest.py). A step's
    folder gets its name when all is written (on gs://, which cannot rename, the file commit_success.txt); unfinished
    ones are ignored. With several processes all of them must call every method.
    """

    def __init__(self, folder: epath.PathLike, kept_steps: Sequence[int] = ()):
        """
        Args:
          folder: of the checkpoints; created if absent. Half-written checkpoints of an earlier run are removed. If the
            newest checkpoints are damaged, they are renamed to `<step>.damaged` with a warning, so that the newest
            whole one is used.
          kept_steps: of which checkpoints are kept besides the newest ones.

        Raises:
          CheckpointError: if Orbax cannot write below the folder.
        """
        self.folder = epath.Path(folder)
        check_path(self.folder)
        self._saving = 0
        from_first(lambda: tidy(self.folder))
        self._manager = _manager(
            self.folder,
            preservation_policy=_preserved(kept_steps),
            # All processes must see the same checkpoints, even if a shared folder shows them late.
            single_host_load_and_broadcast=True,
            # Only asynchronous saving calls back between writing the last file and naming the folder.
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._list_files),
        )

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, data: Any = None, meta: dict[str, Any] | None = None) -> None:
        """Saves the state after `step` steps.

        Args:
          step: the number of optimizer steps done, equal to `state.step`.
          state: may be donated to the next step as soon as this returns.
          data: the data iterator's `get_state()`; JSON.
          meta: anything else to save with it; JSON.

        Raises:
          DiskFullError: if there is no room.
        """
        arrays = {"params": state.params, "opt_state": state.opt_state}
        described = {name: _describe(tree) for name, tree in arrays.items()}
        try:
            self._manager.wait_until_finished()
            self._saving = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=_save_in_chunks(state.params),
                    opt_state=_save_in_chunks(state.opt_state),
                    data=ocp.args.JsonSave({"position": data}),
                    meta=ocp.args.JsonSave({"meta": meta or {}, "arrays": described, "manifest": True}),
                ),
                # Otherwise Orbax would silently skip a step that it considers out of order.
                force=True,
            )
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._explained(error) from error

    def restore(self, abstract: TrainState, step: int | None = None) -> Restored:
        """Restores a checkpoint bit for bit, sharded as `abstract` (`abstract_state`).

        Args:
          abstract: shapes, dtypes and shardings; the mesh may differ from the one that saved.
          step: which checkpoint; the newest by default.

        Raises:
          CheckpointError: if there is none, or if shapes or dtypes differ, naming each leaf.
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
        counter = np.asarray(step, abstract.step.dtype)
        if abstract.step.sharding is None:
            counter = jnp.asarray(counter)
        else:
            counter = jax.make_array_from_callback((), abstract.step.sharding, lambda _: counter)
        state = TrainState(counter, found["params"], found["opt_state"])
        return Restored(state, found["data"]["position"], note["meta"])

    def remove_after(self, step: int) -> None:
        """Removes the checkpoints of later steps than this one."""
        for later in self._manager.all_steps():
            if later > step:
                self._manager.delete(later)

    def close(self) -> None:
        """Waits until everything is written.

        Raises:
          DiskFullError: as `save`.
        """
        try:
            self._manager.close()
        except Exception as error:
            raise self._explained(error) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            self.close()
        except Exception:
            # An earlier error, which ended the run, is the one to raise.
            if kind is None:
                raise

    def _list_files(self) -> None:
        """Writes the manifest; called when all files of a save are written, before its folder gets its name."""
        if jax.process_index() == 0:
            unfinished = [path for path in self.folder.iterdir() if path.name.startswith(f"{self._saving}.orbax")]
            write_manifest(unfinished[0] if unfinished else self.folder / str(self._saving))

    def _explained(self, error: Exception) -> Exception:
        """Returns a DiskFullError for a full disk; other errors unchanged."""
        if isinstance(error, DiskFullError) or not _says_full(error):
            return error
        whole = [step for step in self._manager.all_steps() if step != self._saving]
        kept = f"the checkpoint of step {max(whole)} is kept" if whole else "there is no earlier one"
        return DiskFullError(
            errno.ENOSPC,
            f"no room to save the checkpoint of step {self._saving}; {kept}. Make room; the same command then resumes",
            str(self.folder),
        )


def restore_params(folder: epath.PathLike, abstract: Params, step: int | None = None) -> Params:
    """Returns only the parameters of a run's newest checkpoint, sharded as the abstract tree.

    Args:
      folder: the folder of a `Checkpoints`.
      abstract: for each parameter a jax.ShapeDtypeStruct, with a sharding.
      step: another checkpoint than the newest.

    Parameters on devices of a single process are read by that process only.

    Raises:
      CheckpointError: if there is none, if shapes or dtypes differ, naming each leaf, or if it is damaged: an older
        one would silently be another model.
    """
    folder = epath.Path(folder)
    if not folder.exists():
        raise CheckpointError(f"there is no folder of checkpoints at {folder}")
    with _manager(folder, create=False, multiprocessing_options=_readers(abstract)) as manager:
        step = _existing_step(manager, folder, step)
        check_whole(folder / str(step))
        _checked_note(manager, step, {"params": abstract})
        return manager.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(abstract)))["params"]


def _preserved(kept_steps: Sequence[int]) -> ocp.checkpoint_managers.PreservationPolicy:
    newest = ocp.checkpoint_managers.LatestN(KEEP_NEWEST)
    if not kept_steps:
        return newest
    return ocp.checkpoint_managers.AnyPreservationPolicy([newest, ocp.checkpoint_managers.CustomSteps(kept_steps)])


def _manager(folder: epath.Path, **options: Any) -> ocp.CheckpointManager:
    # Orbax logs every file at absl's INFO level, which would bury the run's own messages.
    logging.getLogger("absl").addFilter(_not_orbax_chatter)
    return ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(**options))


def _readers(abstract: Params) -> ocp.options.MultiprocessingOptions:
    """Which processes read: only this one if all devices are its own, else all of them."""
    here = jax.process_index()
    shardings = [leaf.sharding for leaf in jax.tree.leaves(abstract) if leaf.sharding is not None]
    if jax.process_count() == 1 or not all(sharding.is_fully_addressable for sharding in shardings):
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process_{here}"
    )


def _says_full(error: BaseException | None) -> bool:
    """Whether an error comes from a full disk: each of the writing libraries has its own types and messages for it."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(phrase in str(error) for phrase in ("No space left on device", "quota exceeded", "File too large")):
            return True
        error = error.__cause__ or error.__context__
    return False


def _not_orbax_chatter(record: logging.LogRecord) -> bool:
    # Nor the traceback of an error that is raised anyway.
    return "orbax" not in record.pathname or (record.levelno >= logging.WARNING and not record.exc_info)


def _existing_step(manager: ocp.CheckpointManager, folder: epath.Path, step: int | None) -> int:
    steps = sorted(manager.all_steps())
    if not steps:
        raise CheckpointError(f"there is no checkpoint in {folder}")
    if step is not None and step not in steps:
        raise CheckpointError(f"there is no checkpoint of step {step} in {folder}; there are: {steps}")
    return steps[-1] if step is None else step


def _checked_note(manager: ocp.CheckpointManager, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
    """Returns the `meta` item; raises if its list of arrays is not the wanted one.

    Orbax silently casts to a wanted dtype and names shapes without their leaf, so we compare them ourselves.
    """
    note = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
    differences = [
        f"  {item}/{leaf}: the checkpoint has {found.get(leaf, 'none')}, expected {expected.get(leaf, 'none')}"
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
    """Large leaves in chunks along their first axis, the layers: reading one layer then reads little more than that."""
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
