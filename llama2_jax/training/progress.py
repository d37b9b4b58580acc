"""A progress bar."""

import jax
from tqdm import tqdm


def progress_bar(description: str, done: int, total: int, unit: str) -> tqdm:
    """Returns a bar of `total` units of which `done` are done; shown only on a terminal and by the first process."""
    hidden = True if jax.process_index() else None
    return tqdm(total=total, initial=done, desc=description, unit=unit, disable=hidden, dynamic_ncols=True)
