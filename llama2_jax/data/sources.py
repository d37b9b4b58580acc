"""Sources of records: files or functions that a config names (source.py)."""

import dataclasses
import functools
import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping

from absl import logging
from etils import epath

from llama2_jax.data.bad_line import BadLine
from llama2_jax.data.characters import no_text
from llama2_jax.data.conversions import complete, convert, opening
from llama2_jax.data.files import exists, find_files, rows
from llama2_jax.data.formats import kind_of, to_record
from llama2_jax.data.records import check_record
from llama2_jax.data.source import Source, as_source, for_kind, plain
from llama2_jax.hub.address import parse_address
from llama2_jax.paths import expand_home


@dataclasses.dataclass(frozen=True)
class Reading:
    """The records of a source, and the lines that were skipped, each with its place and the reason."""

    records: list[dict]
    skipped: list[BadLine]


def read(source: Source | Mapping, root: epath.PathLike, seed: int, name: str = "", kind: str = "raw") -> list[dict]:
    """Returns the records of a source; see `read_and_report`."""
    return read_and_report(source, root, seed, name, kind).records


def read_all(
    sources: Mapping[str, Source | Mapping], root: epath.PathLike, seed: int, kind: str = "raw"
) -> dict[str, list[dict]]:
    """Returns the records of several sources, by name, without optional ones that are absent; see `read_and_report`."""
    chosen = {name: available(source, root) for name, source in sources.items()}
    return {name: read(source, root, seed, name, kind) for name, source in chosen.items() if source is not None}


def available(source: Source | Mapping, root: epath.PathLike) -> Source | None:
    """Returns what is read for a source: itself if its path has files, else a copy of what is published, or the hub's.

    None stands for an optional source that is nowhere.

    Raises:
      FileNotFoundError: if the root is not a folder, or nothing is found and the source has no hub.
    """
    source = as_source(source)
    is_published = bool(source.hub.get("path"))
    if not (is_published or source.optional) or exists(source.path, root):
        return source
    if root and not epath.Path(expand_home(root)).is_dir():
        raise FileNotFoundError(f"the data root {str(root)!r} is not a folder; leave it out to read from the hub alone")
    if not is_published:
        logging.warning("no file at %r under the data root %r: the source is left out", source.path, str(root))
        return None
    fields = {field.name: getattr(source, field.name) for field in dataclasses.fields(Source)}
    published = as_source({**fields, **plain(source.hub), "hub": {}, "optional": False})
    copy = parse_address(published.path).copy
    if exists(copy, root):
        return dataclasses.replace(published, path=copy)
    logging.warning("no file at %r under the data root %r: reading %s", source.path, str(root), published.path)
    return published


def read_and_report(
    source: Source | Mapping, root: epath.PathLike, seed: int, name: str = "", kind: str = "raw"
) -> Reading:
    """Reads a source; every record is checked, none is lost silently.

    Args:
      source: what to read.
      root: the folder of relative paths.
      seed: passed to a source's function.
      name: the source's name; records without a field `source` get it.
      kind: the kind of records that the caller needs; "raw" for whatever the source has.

    Returns:
      The records in the order of the files, and the lines skipped under on_bad_line="skip".

    Raises:
      BadLine: at the first bad line under on_bad_line="raise", with file, line, field and what was wanted.
      FileNotFoundError, ValueError: if a path has no files, no records are left, or the source has wrong fields.
    """
    source = for_kind(available(source, root) or source, kind, name)
    records: list[dict] = []
    skipped: list[BadLine] = []
    seen: set[str] = set()
    left_out, prepare = 0, _preparation(source)
    for place, row in _rows(source, root, seed):
        if len(records) == source.limit:
            break
        try:
            if not _is_wanted(row, source.where):
                continue
            seen |= row.keys() & set(source.columns.values())
            record = _record(row, source, prepare)
            if record is None:
                left_out += 1
                continue
            taken = _in_part(record, source.part)
        except ValueError as error:
            bad = row if isinstance(row, BadLine) else BadLine(place, str(error))
            if source.on_bad_line == "raise":
                raise BadLine(place, f'{bad.reason} (or set the source\'s on_bad_line="skip")') from error
            logging.warning("skipped %s", bad)
            skipped.append(bad)
            continue
        if taken:
            records.append({"source": name, **record} if name else record)
    if not records:
        first = f"; the first is {skipped[0]}" if skipped else ""
        raise ValueError(
            f"source {name or source.path or source.function!r}: no records are left ({len(skipped)} bad lines "
            f"skipped, {left_out} left out by prepare, part={source.part}, where={dict(source.where)}){first}"
        )
    if absent := sorted(set(source.columns.values()) - seen):
        logging.warning("source %r: no row has the column %s; the defaults are used", name, ", ".join(absent))
    if skipped:
        logging.warning("source %r: %d records, %d bad lines skipped", name, len(records), len(skipped))
    if left_out:
        logging.info("source %r: %s left out %d records", name, source.prepare["function"], left_out)
    return Reading(records, skipped)


def load_function(path: str) -> Callable:
    """Returns the function with a dotted path.

    Raises:
      ValueError: if there is no such module or function.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"no function {path!r} ({error}); wanted package.module.function") from error


def _rows(source: Source, root: epath.PathLike, seed: int) -> Iterator[tuple[str, dict | BadLine]]:
    if source.function:
        for index, record in enumerate(_called(source, seed)):
            place, fault = f"{source.function}:record {index}", no_text(record)
            yield place, BadLine(place, fault) if fault else record
        return
    files = find_files(source.path, root)
    if source.text_unit == "line" and not any(path.name.removesuffix(".gz").endswith(".txt") for path in files):
        raise ValueError(f'text_unit="line" is for text files, and none of {source.path!r} is one (.txt, .txt.gz)')
    for path in files:
        empty = True
        for row in rows(path, source.text_unit):
            empty = False
            yield row
        if empty:
            raise ValueError(f"{path}: the file has no records")


def _called(source: Source, seed: int) -> Iterable[object]:
    """Returns what a source's function returns."""
    function = load_function(source.function)
    try:
        inspect.signature(function).bind(seed=seed, **source.arguments)
    except TypeError as error:
        raise ValueError(f"{source.function}(seed=.., {dict(source.arguments)}): {error}; see its arguments") from error
    records = function(seed=seed, **source.arguments)
    if not isinstance(records, Iterable) or isinstance(records, str | Mapping):
        raise ValueError(f"{source.function} returned a {type(records).__name__}; wanted a list of records")
    return records


def _is_wanted(row: object, where: Mapping[str, object]) -> bool:
    if isinstance(row, BadLine):
        raise row
    if not isinstance(row, Mapping):
        raise ValueError(f"a {type(row).__name__}, wanted an object with fields")
    for column in where:
        if column not in row:
            raise ValueError(f"there is no column {column}, named in the source's where; there are {', '.join(row)}")
    return all(row[column] == value for column, value in where.items())


def _record(row: Mapping, source: Source, prepare: Callable[[Mapping], Mapping | None] | None) -> dict | None:
    given = kind_of(source.format)
    wanted = source.kind or given
    record = to_record(row, source.format, source.columns, source.defaults)
    record = convert(record, given, wanted) if prepare is None else prepare(record)
    if record is None:
        return None
    record = complete(record, wanted)
    check_record(record, wanted)
    return record


def _preparation(source: Source) -> Callable[[Mapping], Mapping | None] | None:
    """Returns what a source's `prepare` names, with its arguments; None if it names nothing."""
    if not source.prepare:
        return None
    function, arguments = load_function(source.prepare["function"]), source.prepare.get("arguments", {})
    try:
        inspect.signature(function).bind({}, **arguments)
    except TypeError as error:
        named = source.prepare["function"]
        raise ValueError(f"{named}(record, {dict(arguments)}): {error}; see its arguments") from error
    return functools.partial(function, **arguments)


def _in_part(record: Mapping, part: tuple[float, float]) -> bool:
    begin, end = part
    if (begin, end) == (0.0, 1.0):
        return True
    digest = hashlib.sha256(opening(record).strip().encode("utf-8", "surrogatepass")).digest()
    return begin <= int.from_bytes(digest[:8], "big") / 2**64 < end
