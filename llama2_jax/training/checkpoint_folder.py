"""Checks a folder of checkpoints before it is used: removes half-written ones, names damaged ones."""

import errno
import os
import time

import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from llama2_jax.training.manifest import damage, files_below

# Orbax's mark of a finished checkpoint, and of each item in it. On storage that cannot rename a folder, such as gs://,
# a checkpoint without it is an unfinished one, and removed; elsewhere older versions of Orbax do not write it.
COMMIT_MARKER = "commit_success.txt"


class CheckpointError(ValueError):
    """A checkpoint is missing, does not fit or is damaged; the message says which and what to do."""


def check_path(folder: epath.Path) -> None:
    """Raises CheckpointError if Orbax could not finish a checkpoint in the folder, because of its path.

    It looks for each process's files by a pattern that begins with the path. Where the path itself reads as one, it
    finds none and leaves the checkpoint without its index, with no more than a warning.
    """
    wrong = sorted(set(str(folder)) & set("*?[\\"))
    if wrong:
        raise CheckpointError(
            f"checkpoints cannot be written to {folder}: Orbax takes {' '.join(wrong)} in a path for a pattern. Choose "
            "a folder (--workdir) without it"
        )


def tidy(folder: epath.Path) -> None:
    """Removes half-written checkpoints of an earlier run; renames damaged ones newer than the newest whole one.

    They are renamed to `<step>.damaged`, with a warning. To be called by one process only.
    """
    if folder.exists():
        # Orbax would do so in the background, and the room would be free only some time later.
        for unfinished in ocp.path.step.all_temporary_paths(folder):
            _remove(unfinished.get())
        _move_damaged_aside(folder)


def _remove(folder: epath.Path, attempts: int = 20) -> None:
    """Removes a folder; threads of a save that failed in this process may still be writing to it."""
    for attempt in range(attempts):
        try:
            folder.rmtree()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or attempt == attempts - 1:
                raise
            time.sleep(0.1)


def newest_checkpoint(folder: epath.Path) -> epath.Path:
    """Returns the newest checkpoint in a folder of checkpoints.

    Raises:
      CheckpointError: if there is none.
    """
    steps = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []
    if not steps:
        raise CheckpointError(f"there is no checkpoint in {folder}")
    return folder / str(max(steps))


def mark_finished(checkpoint: epath.Path) -> None:
    """Marks a checkpoint as finished, on any storage; to be called when all of it is written.

    Marks that are there stay: the manifest may list them.
    """
    items = [path for path in checkpoint.iterdir() if path.is_dir()]
    for folder in (*items, checkpoint):
        if not (folder / COMMIT_MARKER).exists():
            (folder / COMMIT_MARKER).write_text(f"Checkpoint commit was successful to {folder}")


def copy_checkpoints(source: epath.Path, target: epath.Path) -> None:
    """Copies a folder of checkpoints, to any storage; they are marked as finished when they are there."""
    for file in sorted(files_below(source), key=lambda file: file.name == COMMIT_MARKER):  # the marks last
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        file.copy(copy, overwrite=True)
    for step in target.iterdir():
        if step.name.isdigit():
            mark_finished(step)


def link_checkpoint(source: epath.Path, target: epath.Path, step: int) -> None:
    """Makes a step's checkpoint of one folder of checkpoints that of another: a link, or a copy on other storage."""
    target.mkdir(parents=True, exist_ok=True)
    if "://" in f"{source} {target}":
        for file in sorted(files_below(source / str(step)), key=lambda file: file.name == COMMIT_MARKER):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            file.copy(copy, overwrite=True)
        mark_finished(target / str(step))
        return
    place = os.path.abspath(target / str(step))
    if os.path.islink(place):
        os.unlink(place)
    os.symlink(os.path.abspath(source / str(step)), place, target_is_directory=True)


def check_whole(checkpoint: epath.Path) -> None:
    """Raises CheckpointError if files of a checkpoint are not as they were written, naming them."""
    wrong = damage(checkpoint)
    if wrong:
        raise CheckpointError(
            f"the checkpoint {checkpoint} is damaged: {_listed(wrong)}. Restore its files, or run the stage that "
            "made it again (--redo)"
        )


def _move_damaged_aside(folder: epath.Path) -> None:
    """Renames the newest checkpoints, up to the first one that is whole; nothing is deleted."""
    names = [path.name for path in folder.iterdir()]
    steps = sorted((int(name) for name in names if name.isdigit()), reverse=True)
    for step in steps:
        wrong = damage(folder / str(step))
        if not wrong:
            return
        aside = f"{step}.damaged"
        while aside in names:
            aside += "-again"
        (folder / str(step)).rename(folder / aside)
        logging.warning("the checkpoint %s is damaged: %s. Renamed to %s", folder / str(step), _listed(wrong), aside)
    if steps:
        logging.warning("no whole checkpoint is left in %s: the training starts from the beginning", folder)


def _listed(wrong: list[str], most: int = 5) -> str:
    return "; ".join(wrong[:most]) + (f"; and {len(wrong) - most} more" if len(wrong) > most else "")
