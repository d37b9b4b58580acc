"""What lm-evaluation-harness is told of a task on documents of our own."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from llama2_jax.evaluation.benchmark_files import Documents

# The fields of a task, as in the harness's own files.
Description = dict[str, Any]


def documents_of(splits: Mapping[str, Callable[[], Documents]]) -> Description:
    """Returns the fields that say where a task's documents are; they are read when the harness makes the task.

    Args:
      splits: by name what reads a split; the task is on "test".
    """
    return {"custom_dataset": functools.partial(_read, dict(splits)), "test_split": "test"}


def _read(splits: Mapping[str, Callable[[], Documents]], **metadata: Any) -> dict[str, Any]:
    from datasets import Dataset  # comes with lm-eval

    del metadata
    return {split: Dataset.from_list(documents()) for split, documents in splits.items()}
