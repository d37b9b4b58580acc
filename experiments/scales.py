"""The scales of an experiment, and how a config chooses a value by scale."""

from collections.abc import Mapping
from typing import TypeVar

from ml_collections import ConfigDict, FieldReference

Value = TypeVar("Value")

SCALES = ("tiny", "small", "1b", "7b", "13b", "34b", "70b")


def check_scale(scale: str) -> None:
    """Raises ValueError for a scale that does not exist."""
    if scale not in SCALES:
        raise ValueError(
            f"unknown scale {scale!r} in --config=<experiment>.py:{scale}; choose one of {', '.join(SCALES)}"
        )


def by_scale(scale: str, values: Mapping[str, Value], *, paper: Value) -> Value:
    """The value for a scale: its own where `values` has one, else the paper's."""
    return values.get(scale, paper)


def shared(group: ConfigDict, name: str) -> FieldReference:
    """A value that stages share: overriding the group's field changes all of them, a stage's own only that stage."""
    return group.get_ref(name).identity()
