"""Rows of JSONL, JSON, CSV, text and Parquet files, all but the last also gzipped; each row with its place."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence

from etils import epath

from llama2_jax.data.parquet import parquet_rows
from llama2_jax.hub.address import is_address, parse_address
from llama2_jax.hub.fetch import fetch_files

ENDINGS = (".jsonl", ".json", ".csv", ".txt", ".parquet")


class BadLine(ValueError):
    """A line without a usable record; `reason` says why, without the place."""

    def __init__(self, place: str, reason: str):
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


def find_files(patterns: str | Sequence[str], root: epath.PathLike = "") -> list[epath.Path]:
    """Returns the files that match paths or globs, sorted within each.

    Args:
      patterns: a path or several, relative to the root or absolute; `*`, `?` and `[..]` match parts of a name. An
        address that begins with hf:// names files on the Hugging Face hub, which are downloaded (hub/address.py).
      root: a folder, local or gs://.

    Raises:
      FileNotFoundError: if a pattern matches no file.
      ValueError: if a pattern has `**`, which an object store such as gs:// cannot look up at once, or if a file
        cannot be had from the hub.
    """
    files = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if is_address(pattern):
            files += map(epath.Path, fetch_files(parse_address(pattern)))
            continue
        if "**" in pattern:
            raise ValueError(f"path {pattern!r}: ** is not supported; write out the folders, with * for their names")
        path = epath.Path(root) / pattern
        wildcard = next((i for i, part in enumerate(path.parts) if any(mark in part for mark in "*?[")), None)
        if wildcard is None:
            found = [path] if path.is_file() else []
        else:
            folder = epath.Path(*path.parts[:wildcard])
            matches = folder.glob("/".join(path.parts[wildcard:])) if folder.is_dir() else []
            found = sorted(match for match in matches if match.is_file())
        if not found:
            raise FileNotFoundError(f"no file {str(path)!r} (path {pattern!r} under the data root {str(root)!r})")
        files += found
    return files


def exists(patterns: str | Sequence[str], root: epath.PathLike = "") -> bool:
    """Returns whether all paths and globs have files; what is on the hub is not asked for, but taken to be there."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    try:
        find_files([pattern for pattern in patterns if not is_address(pattern)], root)
    except FileNotFoundError:
        return False
    return True


def rows(path: epath.Path, text_unit: str = "file") -> Iterator[tuple[str, dict | BadLine]]:
    """Yields the rows of a file, each with its place ("file:line"); for a broken row a BadLine.

    Args:
      path: ends in one of ENDINGS, optionally followed by .gz. JSONL: an object a line (blank lines are skipped); JSON:
        a list of objects, or an object a line as in JSONL; CSV: a header, then rows; text: rows of one field, `text`;
        Parquet: rows of its columns.
      text_unit: "file" (a text file is one row) or "line" (each line that is not blank is one).

    Raises:
      ValueError: if the ending or the unit is unknown, or the file's content is not of its format.
    """
    name = str(path)
    ending = next((ending for ending in ENDINGS if name.removesuffix(".gz").endswith(ending)), None)
    if ending is None:
        raise ValueError(
            f"{name}: unknown format; wanted a name that ends in {', '.join(ENDINGS)}, or with .gz after it"
        )
    if text_unit not in ("file", "line"):
        raise ValueError(f'text_unit={text_unit!r}: choose "file" or "line"')
    try:
        with path.open("rb") as stored, gzip.open(stored) if name.endswith(".gz") else stored as file:
            if ending == ".jsonl" or (ending == ".json" and _is_jsonl(file)):
                yield from _jsonl(name, file)
            elif ending == ".json":
                yield from _json(name, file.read())
            elif ending == ".parquet":
                yield from parquet_rows(name, file)
            elif ending == ".csv":
                yield from _csv(name, file)
            else:
                yield from _text(name, file, text_unit)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{name}: the gzip file is broken ({error}); fetch it again") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 ({error}); convert it") from error


def _jsonl(name: str, file: io.BufferedIOBase) -> Iterator[tuple[str, dict | BadLine]]:
    for number, line in enumerate(file, 1):
        place = f"{name}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # the base class of JSONDecodeError and UnicodeDecodeError
            yield place, BadLine(place, f"not JSON ({error}); the line begins {line[:60]!r}")
            continue
        yield place, row if isinstance(row, dict) else BadLine(place, _not_an_object(row))


def _is_jsonl(file: io.BufferedIOBase) -> bool:
    """Returns whether a .json file has an object a line, as many sets on the hub do, and more than one."""
    lines = (line for line in file if line.strip())
    first, second = next(lines, b""), next(lines, b"")
    file.seek(0)
    try:
        return isinstance(json.loads(first), dict) and bool(second)
    except (ValueError, RecursionError):
        return False


def _json(name: str, content: bytes) -> Iterator[tuple[str, dict | BadLine]]:
    try:
        loaded = json.loads(content)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise ValueError(f"{name}: not JSON ({error}); name a file with an object a line .jsonl") from error
    if not isinstance(loaded, list):
        raise ValueError(f"{name}: contains a {type(loaded).__name__}, wanted a list of objects")
    for index, row in enumerate(loaded):
        place = f"{name}:item {index}"
        yield place, row if isinstance(row, dict) else BadLine(place, _not_an_object(row))


def _csv(name: str, file: io.BufferedIOBase) -> Iterator[tuple[str, dict | BadLine]]:
    # Fields with long answers exceed the module's default of 128 KiB.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    header = next(reader, None)
    if header is not None and len(set(header)) < len(header):
        raise ValueError(f"{name}:1: the header has a column twice: {header}")
    for row in reader:
        place = f"{name}:{reader.line_num}"
        if row and len(row) != len(header):
            yield place, BadLine(place, f"{len(row)} columns, the header has {len(header)}: {header}")
        elif row:
            yield place, dict(zip(header, row, strict=True))


def _text(name: str, file: io.BufferedIOBase, unit: str) -> Iterator[tuple[str, dict]]:
    text = file.read().decode("utf-8")
    if unit == "file":
        if text.strip():
            yield name, {"text": text}
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{name}:{number}", {"text": line.removesuffix("\r")}


def _not_an_object(row: object) -> str:
    return f"a {type(row).__name__}, wanted an object with fields"
