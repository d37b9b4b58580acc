"""Which questions training asks, and which are kept for validation and for evaluation.

A question belongs to a split by what it asks for, whatever its wording: an attribute of a land, or so many facts about
it; a sum; numbers to compare; so many things of a category; the things in a story; a task, in a kind of frame. Training
asks nothing that the other splits ask. It may still know the answer: the text for pretraining states the facts, recipes
and sums of all splits, but has none of their questions.

What is asked for has a place among its kind, and neighbours belong to different splits. So the splits have their share
of every level, category and attack, even where there are few requests, and another seed has other questions in them.

The two questions about the assistant itself belong to training alone: there are no others to keep.
"""

import functools
from collections.abc import Callable, Mapping
from typing import TypeVar

from llama2_jax.miniature.instructions import Standing
from llama2_jax.miniature.requests.kinds import KINDS, understand
from llama2_jax.miniature.world import build_world

TRAINING, VALIDATION, EVALUATION = SPLITS = ("training", "validation", "evaluation")
# Of six neighbours one is kept for validation and one for evaluation.
NEIGHBOURS = {0: EVALUATION, 1: VALIDATION, 2: TRAINING, 3: TRAINING, 4: TRAINING, 5: TRAINING}
# Many more than it takes where the split has its share.
MOST_DRAWS = 10_000

Weight = TypeVar("Weight")


@functools.lru_cache(maxsize=65536)
def split_of(seed: int, question: str) -> str:
    """Returns the split of a question, without the standing instructions that may be around it.

    Raises:
      ValueError: if the text is not a request of the small world.
    """
    request = understand(seed, question, Standing())
    if request.kind == "identity":
        return TRAINING
    place = KINDS[request.kind].place(build_world(seed), request.details)
    return NEIGHBOURS[(place + seed) % len(NEIGHBOURS)]


def ask_in(split: str, seed: int, ask: Callable[[], str]) -> str:
    """Returns the first question asked that belongs to the split.

    Args:
      split: one of SPLITS.
      seed: the world's seed.
      ask: returns a question at random.

    Raises:
      ValueError: if the split is unknown, or none of MOST_DRAWS questions belongs to it.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; questions are split into {', '.join(SPLITS)}")
    for _ in range(MOST_DRAWS):
        question = ask()
        if split_of(seed, question) == split:
            return question
    raise ValueError(f"none of {MOST_DRAWS} questions such as {question!r} belongs to the split {split!r}")


def kinds_in(split: str, kinds: Mapping[str, Weight]) -> dict[str, Weight]:
    """Returns the kinds of request that a split has, with their weights."""
    return {kind: weight for kind, weight in kinds.items() if kind != "identity" or split == TRAINING}
