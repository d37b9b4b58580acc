"""Downloads files of a repository on the hub into the cache of huggingface_hub.

The cache is ~/.cache/huggingface/hub, or what HF_HOME or HF_HUB_CACHE names; `hf cache` shows and prunes it. A file
that it has is never fetched again, and needs no connection. A dropped connection is resumed where it broke off; after
the end of the process, files that were complete are kept, and one that was not is fetched again.
"""

import concurrent.futures
import dataclasses
import fnmatch
import glob
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence

from llama2_jax.hub.address import Address, has_wildcard
from llama2_jax.hub.errors import HubError, explained, library

AT_ONCE = 8


def commit_of(address: Address) -> str:
    """Returns the commit that the address's revision stands for now; without a connection, the last one known here.

    Raises:
      HubError: if there is no such repository or revision, or it cannot be asked for.
    """
    if address.is_commit:
        return address.revision
    hub = library(address)
    with explained(address):
        found = hub.HfApi().resolve_revision(address.repository, repo_type=address.kind, revision=address.revision)
    return found.resolved


def fetch_files(address: Address) -> list[pathlib.Path]:
    """Returns the local copies of the files that an address names, sorted; downloads those that are not in the cache.

    Raises:
      HubError: if a file cannot be had, or none matches.
    """
    if not address.path:
        raise HubError(f"{address}: names no file; add the path of one, or a glob such as /data/*.parquet")
    pinned = address.at(commit_of(address))
    names = _matching(pinned) if address.is_glob else [pinned.path]
    if not names:
        raise HubError(f"{address}: no file matches {address.path!r} at commit {pinned.revision}")
    return _download(pinned, names)


def fetch_folder(address: Address, choose: Callable[[Sequence[str]], Sequence[str]]) -> pathlib.Path:
    """Returns a local folder with files of a repository; downloads those that are not in the cache.

    Args:
      address: a repository; without a path.
      choose: (names of all files) -> names of the wanted ones.

    Raises:
      HubError: if a file cannot be had, or none is wanted.
    """
    pinned = dataclasses.replace(address, revision=commit_of(address), path="")
    names = sorted(choose(_listing(pinned, "", recursive=True)))
    if not names:
        raise HubError(f"{address}: none of its files is wanted here")
    first = _download(pinned, names)[0]
    return first.parents[len(pathlib.PurePosixPath(names[0]).parts) - 1]


def _download(address: Address, names: Sequence[str]) -> list[pathlib.Path]:
    hub = library(address)

    def one(name: str) -> pathlib.Path:
        with explained(dataclasses.replace(address, path=name)):
            return pathlib.Path(
                hub.hf_hub_download(address.repository, name, repo_type=address.kind, revision=address.revision)
            )

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, names))


def _matching(address: Address) -> list[str]:
    """Returns the files that match a path, part by part, as data/files.py does it for local ones.

    A path that exists is that file, and its first folders that exist are these folders, whatever is in their names.
    Only folders that can have a match are listed.
    """
    parts = pathlib.PurePosixPath(address.path).parts
    plain = next(index for index, part in enumerate(parts) if has_wildcard(part))
    names = _listing(address, "/".join(parts[:plain]), recursive=plain < len(parts) - 1)
    if address.path in names:
        return [address.path]
    folders = {folder for name in names for folder in pathlib.PurePosixPath(name).parents}
    patterns = list(parts)
    for index in range(len(parts) - 1):
        if has_wildcard(parts[index]) and pathlib.PurePosixPath(*parts[: index + 1]) not in folders:
            break
        patterns[index] = glob.escape(parts[index])
    return sorted(name for name in names if _fits(pathlib.PurePosixPath(name).parts, patterns))


def _fits(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Returns whether each part matches its pattern; a name that begins with a dot only a pattern that does, too."""
    return len(parts) == len(patterns) and all(
        fnmatch.fnmatchcase(part, pattern) and (pattern.startswith(".") or not part.startswith("."))
        for part, pattern in zip(parts, patterns, strict=True)
    )


def _listing(address: Address, folder: str, recursive: bool) -> list[str]:
    """Returns the names of the files in a folder at a commit; kept in the repository's folder of the cache."""
    hub = library(address)
    name = hashlib.sha256(f"{folder}\n{recursive}".encode()).hexdigest()[:16]
    repository = f"{address.kind}s--{address.repository.replace('/', '--')}"
    path = pathlib.Path(hub.constants.HF_HUB_CACHE) / repository / "listings" / address.revision / f"{name}.json"
    with explained(dataclasses.replace(address, path=folder or address.path)):
        if kept := _kept(path):
            return kept
        entries = hub.HfApi().list_repo_tree(
            address.repository, folder or None, recursive=recursive, revision=address.revision, repo_type=address.kind
        )
        names = [entry.path for entry in entries if isinstance(entry, hub.hf_api.RepoFile)]
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(names))
        draft.rename(path)
    return names


def _kept(path: pathlib.Path) -> list[str]:
    """Returns the names in a listing of the cache; none if it is absent or damaged, or has none."""
    try:
        names = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []
