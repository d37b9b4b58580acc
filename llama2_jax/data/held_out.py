"""Comparisons held out for tests, by prompt: no reward model is tested on a prompt that it was trained on."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from llama2_jax.data.content_hash import prompt_hash, uniform


class Split(NamedTuple):
    """Comparisons to train on and comparisons held out, each in the order in which they were given."""

    training: list[dict]
    test: list[dict]


def check_test_comparisons(test_comparisons: int, prompts: float) -> None:
    """Checks that prompts can give the comparisons that are held out, and others to train on.

    Args:
      test_comparisons: how many are to be held out.
      prompts: their number; each gives one comparison at most.

    Raises:
      ValueError: if the prompts are too few, or `test_comparisons` is negative.
    """
    if test_comparisons < 0:
        raise ValueError(f"test_comparisons={test_comparisons}; wanted 0 or more")
    if test_comparisons >= prompts:
        raise ValueError(
            f"test_comparisons={test_comparisons}, but {prompts} prompts give at most {prompts} comparisons, "
            f"and some must be left to train on: give at least {test_comparisons + 1} prompts, or hold out at most "
            f"{max(prompts - 1, 0)}"
        )


def split_by_prompt(
    rows: Sequence[dict],
    test_comparisons: int,
    stage: str,
    *,
    earlier_training: Sequence[dict] = (),
    earlier_test: Sequence[dict] = (),
) -> Split:
    """Splits a round's comparisons so that each prompt is on one side, in this round and in all earlier ones.

    A prompt of an earlier round stays on its side. Of the new ones those with the smallest hashes are held out, as many
    as it takes to hold out `test_comparisons` in all. The result does not depend on the order of the rows.

    Args:
      rows: the comparisons, with `messages`.
      test_comparisons: how many to hold out. There are more if earlier rounds held out so many of the prompts, and
        fewer if new prompts do not give so many.
      stage: its name, for messages.
      earlier_training: the comparisons of earlier rounds that models train on.
      earlier_test: those of earlier rounds that were held out. A prompt on both sides counts as held out.

    Raises:
      ValueError: if no comparison is left to train on.
    """
    hashes = [prompt_hash(row["messages"]) for row in rows]
    counts = Counter(hashes)
    held_out = {prompt_hash(row["messages"]) for row in earlier_test}
    decided = held_out | {prompt_hash(row["messages"]) for row in earlier_training}
    found = sum(counts[prompt] for prompt in held_out)
    for prompt in sorted(counts.keys() - decided):
        if found + counts[prompt] <= test_comparisons:
            held_out.add(prompt)
            found += counts[prompt]
    training = [row for row, prompt in zip(rows, hashes, strict=True) if prompt not in held_out]
    if not training:
        raise ValueError(
            f"{stage}: all {len(rows)} comparisons that were made, of {len(counts)} prompts, are held out "
            f"(test_comparisons={test_comparisons}) and none is left to train on: give more prompts or hold out fewer"
        )
    return Split(training, [row for row, prompt in zip(rows, hashes, strict=True) if prompt in held_out])


def without_test_prompts(rows: Sequence[dict], test: Sequence[dict]) -> tuple[list[dict], int]:
    """Returns the rows whose prompt is not among the test rows' prompts, and the number of the others."""
    held_out = {prompt_hash(row["messages"]) for row in test}
    kept = [row for row in rows if prompt_hash(row["messages"]) not in held_out]
    return kept, len(rows) - len(kept)


def part_by_prompt(rows: Sequence[dict], fraction: float, seed: int) -> list[dict]:
    """Returns the rows of about this fraction of the prompts, in their order.

    A prompt is in or out by its hash with the seed, wherever its rows come from. So a smaller fraction's rows are among
    a larger one's, and more rows leave those that were in where they are.
    """
    return [row for row in rows if uniform("part", seed, prompt_hash(row["messages"])) < fraction]
