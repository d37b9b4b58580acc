"""Paths as users write them: `~` is the home folder, in every flag and every field of a config that takes a path."""

import os


def expand_home(path: str | os.PathLike) -> str:
    """Returns a path with its leading `~` or `~user` replaced by that home folder; any other path as it is.

    A shell expands `~` at the beginning of a word only: not in `--workdir=~/run`, and never in a config.
    """
    return os.path.expanduser(os.fspath(path))


def absolute(path: str | os.PathLike) -> str:
    """Returns a local path as an absolute one, with `~` expanded; an address of another storage (gs://) as it is."""
    path = expand_home(path)
    return path if "://" in path else os.path.abspath(path)
