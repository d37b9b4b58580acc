"""Sampling and scoring in portions: each is kept when it is made, so that a run that is killed loses one at most.

A training has checkpoints; a stage that samples goes on behind the portions that it finds in its folder. An answer's
randomness comes from its prompt's number, so that where the cuts are, and how many there were, changes no answer.
"""

from collections.abc import Callable

from absl import logging
from etils import epath

from llama2_jax.inference.batches import rows_together
from llama2_jax.sharding.processes import from_first
from llama2_jax.stages.runtime import Runtime, read_jsonl, write_jsonl
from llama2_jax.training.progress import progress_bar
from llama2_jax.training.watchdog import Watchdog

# A portion is as many batches of generation: the last is hardly ever full, and a device waits while files are written.
BATCHES = 8


def in_portions(
    name: str, count: int, work: Callable[[int, int], list[dict]], runtime: Runtime, size: int = 0
) -> list[dict]:
    """A row for each of `count` items (prompts, dialogues), made portion by portion.

    Args:
      name: of the work, which no other of the stage has: its portions lie in `<stage folder>/portions/<name>`.
      count: how many items there are.
      work: (first, stop) gives the rows of these items, of what JSON can hold.
      runtime: the stage's.
      size: how many items a portion has; by default `portion_size` with one answer each.

    Returns:
      The rows in order, those that an earlier start had made among them.

    Raises:
      ValueError: where more rows were kept than there are items, and where `work` does not give a row for each.
    """
    folder = runtime.folder / "portions" / name
    size = size or portion_size(runtime)
    rows = [row for file in from_first(lambda: _whole_portions(folder)) for row in read_jsonl(folder / file)]
    label = f"{runtime.stage}, {name}"
    if len(rows) > count:
        raise ValueError(
            f"{folder} holds {len(rows)} rows, but there are {count} items now: the stage's sources have changed since "
            f"it began. Bring them back, or give --redo={runtime.stage} to begin it anew."
        )
    if rows:
        logging.info("%s: %d of %d were made before", label, len(rows), count)
    with Watchdog(runtime.step_timeout, label) as watchdog, progress_bar(label, len(rows), count, "row") as bar:
        while len(rows) < count:
            first, stop = len(rows), min(len(rows) + size, count)
            made = work(first, stop)
            if len(made) != stop - first:
                raise ValueError(f"{label}: {len(made)} rows were made of the items {first} to {stop}")
            write_jsonl(folder / f"{first}.jsonl", made)
            rows += made
            watchdog.finished(stop)
            bar.update(len(made))
    return rows


def portion_size(runtime: Runtime, answers_each: int = 1) -> int:
    """How many items a portion has where so many answers are sampled for each."""
    return max(1, BATCHES * rows_together(runtime.model, runtime.mesh) // answers_each)


def forget_portions(folder: epath.Path) -> None:
    """Removes a stage's portions; to be called when all that was made of them is written."""
    portions = folder / "portions"
    from_first(lambda: portions.rmtree() if portions.exists() else None)


def _whole_portions(folder: epath.Path) -> list[str]:
    """The names of the portions that can be read, up to the first gap; those behind it are made again."""
    folder.mkdir(parents=True, exist_ok=True)
    names, count = [], 0
    while (file := folder / f"{count}.jsonl").exists():
        try:
            rows = len(read_jsonl(file))
        except ValueError:
            rows = 0
        if not rows:
            logging.warning("%s is damaged; what it held, and what comes behind it, is made again", file)
            break
        names.append(file.name)
        count += rows
    return names
