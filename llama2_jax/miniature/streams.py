"""Random numbers by purpose: every purpose has its own stream, independent of the others."""

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")


def stream(seed: int, *purpose: object) -> random.Random:
    """Returns the stream of random numbers of a purpose; the same in every process and on every machine."""
    return random.Random("/".join(str(part) for part in (seed, *purpose)))


def pick(rng: random.Random, weights: Mapping[Value, float]) -> Value:
    """Draws one of the keys with a probability proportional to its weight."""
    return rng.choices(tuple(weights), tuple(weights.values()))[0]


def shuffled(rng: random.Random, values: Sequence[Value]) -> list[Value]:
    """Returns the values in random order."""
    return rng.sample(values, len(values))
