"""Random numbers by name of purpose: every purpose has a stream of its own, and none disturbs another."""

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")


def stream(seed: int, *purpose: object) -> random.Random:
    """The stream of random numbers of a purpose; the same in every process and on every machine."""
    return random.Random("/".join(str(part) for part in (seed, *purpose)))


def pick(rng: random.Random, weights: Mapping[Value, float]) -> Value:
    """One of the keys, as often as its weight says."""
    return rng.choices(tuple(weights), tuple(weights.values()))[0]


def shuffled(rng: random.Random, values: Sequence[Value]) -> list[Value]:
    """The values in random order."""
    return rng.sample(values, len(values))
