"""How many records sources give: at most, by their configuration, or as they are, by reading them."""

import math
from collections.abc import Callable, Mapping

from etils import epath

from llama2_jax.data.source import Source, as_source
from llama2_jax.data.sources import read_all

# Counts the records of several sources, by name.
Count = Callable[[Mapping[str, Source | Mapping]], float]


def most_records(sources: Mapping[str, Source | Mapping]) -> float:
    """Returns the most records that the sources can give: the sum of their limits; infinity if one has none."""
    limits = (as_source(source).limit for source in sources.values())
    return sum(math.inf if limit is None else limit for limit in limits)


def count_records(root: epath.PathLike, seed: int) -> Count:
    """Returns a function that reads sources, relative to the root, and counts their records; each is read once."""
    counts: dict[str, int] = {}

    def count(sources: Mapping[str, Source | Mapping]) -> int:
        total = 0
        for name, source in sources.items():
            key = repr(as_source(source))
            if key not in counts:
                counts[key] = sum(map(len, read_all({name: source}, root, seed).values()))
            total += counts[key]
        return total

    return count
