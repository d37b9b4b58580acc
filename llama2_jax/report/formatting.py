"""Numbers and names as the page shows them."""

import re


def half_interval(standard_error: float | None) -> float | None:
    """Returns half the length of a 95% interval; None without a standard error."""
    return None if standard_error is None else 1.96 * standard_error


def percent(value: float | None, digits: int = 0) -> str:
    """Returns a share in percent, a dash for None; with at least one decimal where it is small or close to 1."""
    if value is None:
        return "–"
    if 0 < abs(value) < 0.0995 or 0.995 <= value < 1:
        digits = max(digits, 1)
    return f"{value:.{digits}%}"


def number(value: float | None, digits: int = 3) -> str:
    """Returns a number with at most `digits` decimals, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    """Returns seconds as a text in seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def words(name: str | None) -> str:
    """Returns a field's name as words."""
    return re.sub("[_]+", " ", name or "")
