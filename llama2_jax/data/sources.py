"""Sources of records: files or functions that a config names.

A source in a config is a mapping with the fields of `Source`:

    {"path": "sft/dolly.jsonl.gz", "format": "dialogues",
     "columns": {"user": "instruction", "context": "context", "assistant": "response"}}
    {"path": "hh_rlhf/*/train.jsonl.gz", "format": "hh_rlhf", "on_bad_line": "skip",
     "defaults": {"domain": "helpfulness"}, "part": (0.0, 0.9)}
    {"path": "hf://datasets/databricks/databricks-dolly-15k/*.jsonl", "format": "dialogues", "columns": {...}}
    {"function": "my_package.my_module.my_dialogues", "arguments": {"count": 1000}, "format": "dialogues"}
"""

import dataclasses
import difflib
import hashlib
import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from absl import logging
from etils import epath

from llama2_jax.data.bad_line import BadLine
from llama2_jax.data.characters import no_text
from llama2_jax.data.conversions import complete, convert, opening, readable_as
from llama2_jax.data.files import exists, find_files, rows
from llama2_jax.data.formats import check_columns, kind_of, to_record
from llama2_jax.data.records import CONVERSATIONS, KINDS, check_record
from llama2_jax.hub.address import is_address, parse_address
from llama2_jax.paths import expand_home


@dataclasses.dataclass(frozen=True)
class Source:
    """One source of records.

    Attributes:
      path: a file, a glob or several of them, relative to the data root: .jsonl, .json, .csv, .txt, each also .gz, and
        .parquet; or files on the Hugging Face hub, hf://datasets/<org>/<name>[@<revision>]/<path>. A path that exists
        is that file, also with a `[` in its name; `~` is the home folder.
      hub: where the set is published: the `path`, and other fields that differ there. Read where the data root has no
        file at `path`, nor a copy of the published files in the folder <org>/<name>. An empty path turns it off.
      optional: whether to do without the source where it is neither in the data root nor on the hub.
      function: instead of a path, a function's dotted path; called as function(seed=seed, **arguments), it returns a
        list of records.
      arguments: for the function.
      format: of a row: a kind (records.py; the project's own fields), alpaca, sharegpt, openai_chat, hh_rlhf, or raw
        (left unchanged; checked as what the stage needs).
      kind: the kind of records wanted, if it is not the format's: prompts from dialogues or from preferences, say.
      columns: for each of our fields its column in the file (formats.to_record).
      where: for columns the value that they must have; other rows are left out.
      defaults: fields for records that lack them, also where `columns` names a column that a row does not have.
      text_unit: whether a text file is one record ("file") or has one a line ("line").
      weight: in pretraining and for the tokenizer the source's part of the mixture, relative to the others'; in
        fine-tuning how often each of its dialogues is seen in an epoch. Other stages read a source as it is, and refuse
        a weight other than 1.
      limit: the most records to take, from the beginning; None for all.
      part: (begin, end) within [0, 1]: the records with the hash of their opening in this range. Parts that do not
        overlap share no record, and conversations with the same first user turn are always in the same part.
      on_bad_line: "raise" at a line without a usable record, or "skip" it, which is counted and logged with its place.
    """

    path: str | Sequence[str] = ""
    hub: Mapping[str, object] = dataclasses.field(default_factory=dict)
    optional: bool = False
    function: str = ""
    arguments: Mapping[str, object] = dataclasses.field(default_factory=dict)
    format: str = ""
    kind: str = ""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    where: Mapping[str, object] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, object] = dataclasses.field(default_factory=dict)
    text_unit: str = "file"
    weight: float = 1.0
    limit: int | None = None
    part: tuple[float, float] = (0.0, 1.0)
    on_bad_line: str = "raise"

    def __post_init__(self):
        if bool(self.path) == bool(self.function):
            raise ValueError(f"a source needs either a path or a function: {self}")
        if (self.hub or self.optional) and not self.path:
            raise ValueError(f"hub and optional belong to a path, for where it has no files: {self}")
        if self.hub and self.hub.get("path") != "" and not is_address(self.hub.get("path")):
            raise ValueError(f"hub={dict(self.hub)}: wanted its path, hf://datasets/<org>/<name>[@<revision>]/<path>")
        if self.path and self.arguments:
            raise ValueError(f"arguments={dict(self.arguments)}: they are for a function, and this source has a path")
        check_columns(self.format, self.columns)  # raises if the format is unknown
        if self.kind and self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}; choose one of {', '.join(KINDS)}")
        if self.kind not in ("", kind_of(self.format), *readable_as(kind_of(self.format))):
            raise ValueError(f"records of format {self.format!r} cannot be read as kind={self.kind!r}")
        if self.on_bad_line not in ("raise", "skip"):
            raise ValueError(f'on_bad_line={self.on_bad_line!r}: choose "raise" or "skip"')
        if self.text_unit not in ("file", "line"):
            raise ValueError(f'text_unit={self.text_unit!r}: choose "file" or "line"')
        if self.text_unit == "line" and self.function:
            raise ValueError('text_unit="line" is for text files, and this source has a function')
        if not (isinstance(self.part, list | tuple) and len(self.part) == 2 and all(map(_is_number, self.part))):
            raise ValueError(f"part={self.part!r}: wanted (begin, end) with 0 <= begin < end <= 1")
        begin, end = self.part
        if not 0 <= begin < end <= 1:
            raise ValueError(f"part={self.part}: wanted (begin, end) with 0 <= begin < end <= 1")
        if self.limit is not None and (type(self.limit) is not int or self.limit < 1):
            raise ValueError(f"limit={self.limit!r}: wanted a positive whole number, or None for all records")
        if not _is_number(self.weight) or self.weight < 0:
            raise ValueError(f"weight={self.weight!r}: wanted a number, 0 or more")


@dataclasses.dataclass(frozen=True)
class Reading:
    """The records of a source, and the lines that were skipped, each with its place and the reason."""

    records: list[dict]
    skipped: list[BadLine]


def as_source(description: Source | Mapping) -> Source:
    """Returns a source from a mapping such as a config's.

    Raises:
      ValueError: if a field is unknown or has a wrong value.
    """
    if isinstance(description, Source):
        return description
    fields = _plain(description)
    known = [field.name for field in dataclasses.fields(Source)]
    for name in fields:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"a source has no field {name!r}{hint}; it has {', '.join(known)}")
    return Source(**fields)


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
    published = as_source({**fields, **_plain(source.hub), "hub": {}, "optional": False})
    copy = parse_address(published.path).copy
    if exists(copy, root):
        return dataclasses.replace(published, path=copy)
    logging.warning("no file at %r under the data root %r: reading %s", source.path, str(root), published.path)
    return published


def for_kind(description: Source | Mapping, kind: str, name: str) -> Source:
    """Returns a source for a reader of a kind; what is raw becomes that kind.

    Raises:
      ValueError: if the source has records of another kind, or its fields are wrong.
    """
    source = as_source(description)
    own = source.kind or kind_of(source.format)
    if kind in ("raw", own) or (kind == "user_turns" and own in CONVERSATIONS):
        return source
    if own == "raw":
        return dataclasses.replace(source, kind=kind)
    hint = f'; set its kind="{kind}"' if kind in readable_as(kind_of(source.format)) else ""
    raise ValueError(f"source {name!r} has records of kind {own!r} and {kind!r} is wanted here{hint}")


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
    for place, row in _rows(source, root, seed):
        if len(records) == source.limit:
            break
        try:
            if not _is_wanted(row, source.where):
                continue
            seen |= row.keys() & set(source.columns.values())
            record = _record(row, source)
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
            f"skipped, part={source.part}, where={dict(source.where)}){first}"
        )
    if absent := sorted(set(source.columns.values()) - seen):
        logging.warning("source %r: no row has the column %s; the defaults are used", name, ", ".join(absent))
    if skipped:
        logging.warning("source %r: %d records, %d bad lines skipped", name, len(records), len(skipped))
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


def _record(row: Mapping, source: Source) -> dict:
    given = kind_of(source.format)
    wanted = source.kind or given
    record = to_record(row, source.format, source.columns, source.defaults)
    record = complete(convert(record, given, wanted), wanted)
    check_record(record, wanted)
    return record


def _in_part(record: Mapping, part: tuple[float, float]) -> bool:
    begin, end = part
    if (begin, end) == (0.0, 1.0):
        return True
    digest = hashlib.sha256(opening(record).strip().encode("utf-8", "surrogatepass")).digest()
    return begin <= int.from_bytes(digest[:8], "big") / 2**64 < end


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: object) -> object:
    """Returns mappings of any type (such as a config's) as dicts."""
    if hasattr(value, "items"):
        return {name: _plain(item) for name, item in value.items()}
    return value
