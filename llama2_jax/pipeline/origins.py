"""Where a stage's data and models come from: files of the data root, or a commit of a repository on the hub.

It is decided once, when a stage begins, and kept in its record: an interrupted stage reads on from the same files at
the same commits, whatever has been published, downloaded or deleted since. A revision that an earlier stage of the run
has read is the same commit for the later ones.

The configuration in a stage's identity has the sources as they are written, so that it is the same whether the files
are read from the hub or were downloaded by hand before, and a finished stage stays finished when its files are gone.
The commits are part of the stage's fingerprint, which covers what the stages after it read.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypedDict

from etils import epath

from llama2_jax.data.sources import available
from llama2_jax.hub.address import Address, is_address, parse_address
from llama2_jax.hub.fetch import commit_of


class Origins(TypedDict):
    """What was decided; JSON.

    Attributes:
      sources: for each source that may be read from several places, named by its place in the stage's part of the
        config ("sources.dolly"), the path that is read; "" for one that is left out.
      revisions: for each branch or tag on the hub ("hf://datasets/<org>/<name>@main") its commit.
    """

    sources: dict[str, str | list[str]]
    revisions: dict[str, str]


NO_ORIGINS: Origins = {"sources": {}, "revisions": {}}


def stage_origins(part: Mapping, root: str, folder: epath.Path, earlier: Iterable[Mapping]) -> Origins:
    """Returns where a stage reads its data: as when it began, if it was interrupted, else as is decided now.

    Args:
      part: the stage's part of the config, plain dicts.
      root: the data root.
      folder: the stage's own; its started.json has what was decided.
      earlier: the records of the stages before it.

    Raises:
      FileNotFoundError, ValueError: as `decide_origins`.
    """
    started = folder / "started.json"
    if started.exists() and "origins" in (record := json.loads(started.read_text())):
        return record["origins"]
    known = [record["origins"]["revisions"] for record in earlier if "origins" in record]
    return decide_origins(part, root, {version: commit for one in known for version, commit in one.items()})


def decide_origins(part: Mapping, root: str, known: Mapping[str, str]) -> Origins:
    """Decides where a stage that begins reads what its part of the config names.

    Args:
      part: the stage's part, plain dicts.
      root: the data root.
      known: the commits of revisions that earlier stages have read.

    Raises:
      FileNotFoundError, ValueError: if a source is neither in the data root nor on the hub, or the hub has no such
        repository or revision.
    """
    part = _without_unread(part)
    sources: dict[str, str | list[str]] = {}
    for place, source in _sources(part):
        found = available(source, root)
        sources[place] = "" if found is None else _plain_path(found.path)
    revisions: dict[str, str] = {}
    for address in _addresses(_chosen(part, sources)):
        if not address.is_commit and address.version not in revisions:
            revisions[address.version] = known.get(address.version) or commit_of(address)
    return {"sources": sources, "revisions": revisions}


def with_origins(part: Mapping, origins: Origins) -> dict:
    """Returns a stage's part with the paths that were decided on, and every address on the hub at its commit."""

    def pinned(text: str) -> str:
        address = parse_address(text)
        return text if address.is_commit else str(address.at(origins["revisions"][address.version]))

    return _with_addresses(_chosen(_without_unread(part), origins["sources"]), pinned)


def _without_unread(part: Mapping) -> Mapping:
    """Returns a part without the held-out sources that belong to sources which the config has replaced."""
    if not isinstance(part.get("held_out"), Mapping) or "sources" not in part:
        return part
    return {**part, "held_out": {name: one for name, one in part["held_out"].items() if name in part["sources"]}}


def _sources(part: Mapping, place: str = "") -> Iterator[tuple[str, Mapping]]:
    for name, value in part.items():
        if isinstance(value, Mapping):
            if value.get("path") and (value.get("hub", {}).get("path") or value.get("optional")):
                yield f"{place}{name}", value
            else:
                yield from _sources(value, f"{place}{name}.")


def _chosen(part: Mapping, sources: Mapping[str, str | list[str]], place: str = "") -> dict:
    """Returns a part whose sources have the chosen path, and no other; without those that are left out."""
    chosen = {}
    for name, value in part.items():
        here = f"{place}{name}"
        if here in sources:
            path = sources[here]
            if path:
                published = {} if path == _plain_path(value["path"]) else value["hub"]
                chosen[name] = {**value, **published, "path": path, "hub": {}, "optional": False}
        else:
            chosen[name] = _chosen(value, sources, f"{here}.") if isinstance(value, Mapping) else value
    return chosen


def _addresses(value: object) -> Iterator[Address]:
    if is_address(value):
        yield parse_address(value)
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _addresses(item)


def _with_addresses(value: object, change: Callable[[str], str]) -> object:
    if is_address(value):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _with_addresses(item, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_with_addresses(item, change) for item in value)
    return value


def _plain_path(path: str | list | tuple) -> str | list[str]:
    return path if isinstance(path, str) else list(path)
