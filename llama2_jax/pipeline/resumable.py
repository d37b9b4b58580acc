"""Resumable maps: sampling and scoring whose results are saved shard by shard, so that a kill loses one shard at most.

Training has checkpoints; a stage that samples resumes after the shards that it finds in its folder. An answer's
randomness depends on its prompt's id and never on the shard, so shards of any size give the same answers.
"""

from collections.abc import Callable

from absl import logging
from etils import epath

from llama2_jax.inference.batches import generation_batch_size
from llama2_jax.pipeline.runtime import Runtime
from llama2_jax.pipeline.stage_files import read_jsonl, write_jsonl
from llama2_jax.sharding.processes import from_first
from llama2_jax.training.progress import progress_bar
from llama2_jax.training.watchdog import Watchdog

# Batches of generation in a shard: the last one is rarely full, and devices are idle while files are written.
BATCHES_PER_SHARD = 8


def map_resumable(
    name: str, count: int, work: Callable[[int, int], list[dict]], runtime: Runtime, size: int = 0
) -> list[dict]:
    """Returns a row for each of `count` items (prompts, dialogues), computed and saved shard by shard.

    Args:
      name: identifies the map within the stage; its shards are in `<stage folder>/shards/<name>`.
      count: how many items there are.
      work: `work(first, stop)` returns a JSON-serialisable row for each item in [first, stop).
      runtime: the stage's.
      size: items in a shard; by default `shard_size` with one answer an item.

    Returns:
      The rows in order, including those that an earlier start had saved.

    Raises:
      ValueError: if more rows were saved than there are items, or `work` does not return one row an item.
    """
    folder = runtime.folder / "shards" / name
    size = size or shard_size(runtime)
    rows = [row for file in from_first(lambda: _readable_shards(folder)) for row in read_jsonl(folder / file)]
    label = f"{runtime.stage}, {name}"
    if len(rows) > count:
        raise ValueError(
            f"{folder} has {len(rows)} rows, but there are {count} items now: the stage's sources have changed since "
            f"it began. Restore them, or give --redo={runtime.stage} to start it again."
        )
    if rows:
        logging.info("%s: resuming after %d of %d rows", label, len(rows), count)
    with Watchdog(runtime.step_timeout, label) as watchdog, progress_bar(label, len(rows), count, "row") as bar:
        while len(rows) < count:
            first, stop = len(rows), min(len(rows) + size, count)
            made = work(first, stop)
            if len(made) != stop - first:
                raise ValueError(f"{label}: {len(made)} rows were returned for the items {first} to {stop}")
            write_jsonl(folder / f"{first}.jsonl", made)
            rows += made
            watchdog.finished(stop)
            bar.update(len(made))
    return rows


def shard_size(runtime: Runtime, answers_per_item: int = 1) -> int:
    """Items in a shard if `answers_per_item` answers are sampled for each."""
    return max(1, BATCHES_PER_SHARD * generation_batch_size(runtime.model, runtime.mesh) // answers_per_item)


def remove_shards(folder: epath.Path) -> None:
    """Removes a finished stage's shards."""
    shards = folder / "shards"
    from_first(lambda: shards.rmtree() if shards.exists() else None)


def _readable_shards(folder: epath.Path) -> list[str]:
    """Names of the shards that can be read, up to the first gap; later ones are computed again."""
    folder.mkdir(parents=True, exist_ok=True)
    names, count = [], 0
    while (file := folder / f"{count}.jsonl").exists():
        try:
            rows = len(read_jsonl(file))
        except ValueError:
            rows = 0
        if not rows:
            logging.warning("%s is damaged; it and the shards after it are computed again", file)
            break
        names.append(file.name)
        count += rows
    return names
