"""Rows that are read together: of few lengths, and so many of each length as have about scoring_tokens tokens."""

from jax.sharding import Mesh

from llama2_jax.models.config import ModelConfig
from llama2_jax.sharding.mesh import data_parallel_size

# Each length is a program to compile; in longer rows attention takes more of the time.
ROW_LENGTHS = tuple(256 * 4**power for power in range(10))


def row_length(tokens: int, longest: int) -> int:
    """Returns the length of the rows that a sequence is packed into: the next of ROW_LENGTHS, at most `longest`."""
    return min(next(length for length in ROW_LENGTHS if length >= tokens), longest)


def rows_at_once(config: ModelConfig, mesh: Mesh | None, length: int) -> int:
    """Returns how many rows of so many tokens are read together; the same number on each device."""
    groups = data_parallel_size(mesh)
    return groups * max(1, config.scoring_tokens // length // groups)
