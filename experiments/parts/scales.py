"""The scales of an experiment, and how a value is chosen by scale."""

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

SCALES = ("tiny", "small", "1b", "7b", "13b", "34b", "70b")


def by_scale(scale: str, values: Mapping[str, Value], *, paper: Value) -> Value:
    """Returns the scale's own value where `values` has one, else the paper's."""
    return values.get(scale, paper)
