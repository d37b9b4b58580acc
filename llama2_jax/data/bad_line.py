"""The error of a line without a usable record."""


class BadLine(ValueError):
    """A line without a usable record; `reason` says why, without the place."""

    def __init__(self, place: str, reason: str):
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


def shown(value: object) -> str:
    """Returns the beginning of a value as code, to be put in a message."""
    try:
        code = repr(value)
    except RecursionError:  # JSON may nest more deeply than repr can follow
        code = f"a {type(value).__name__}, deeply nested"
    return code if len(code) <= 60 else f"{code[:60]}.."
