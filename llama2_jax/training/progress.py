"""A bar that shows how far a work is."""

import jax
from tqdm import tqdm


def progress_bar(description: str, done: int, total: int, unit: str) -> tqdm:
    """A bar of `total` units of which some are done, for who watches: not in a log file, and by one process alone."""
    hidden = True if jax.process_index() else None
    return tqdm(total=total, initial=done, desc=description, unit=unit, disable=hidden, dynamic_ncols=True)
