"""Paths as users write them: `~` is the home folder, in every flag and every field of a config that takes a path."""

import os

# Where files can be, beside this machine.
_STORAGES = ("gs", "s3", "az", "hf")


def expand_home(path: str | os.PathLike) -> str:
    """Returns a path with its leading `~` or `~user` replaced by that home folder; any other path as it is.

    A shell expands `~` at the beginning of a word only: not in `--workdir=~/run`, and never in a config.

    Raises:
      ValueError: if the path is an address of a storage that cannot be read, such as file:// or https://.
    """
    path = os.path.expanduser(os.fspath(path))
    scheme, separator, rest = path.partition("://")
    if separator and scheme.isalnum() and scheme not in _STORAGES:
        instead = f"; a path on this machine is written without it, {rest}" if scheme == "file" else ""
        raise ValueError(f"{path}: {scheme}:// cannot be read{instead}")
    return path


def absolute(path: str | os.PathLike) -> str:
    """Returns a local path as an absolute one, with `~` expanded; an address of another storage (gs://) as it is."""
    path = expand_home(path)
    return path if "://" in path else os.path.abspath(path)
