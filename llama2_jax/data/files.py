"""Rows of JSONL, JSON, CSV, text and Parquet files, all but the last also gzipped; each row with its place."""

import codecs
import glob
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence

from etils import epath

from llama2_jax.data.bad_line import BadLine
from llama2_jax.data.characters import decode, no_text
from llama2_jax.data.csv_rows import csv_rows
from llama2_jax.data.parquet import parquet_rows
from llama2_jax.hub.address import is_address, parse_address
from llama2_jax.hub.fetch import fetch_files
from llama2_jax.paths import expand_home

ENDINGS = (".jsonl", ".json", ".csv", ".txt", ".parquet")
# How a file begins that stands for one that Git LFS has not fetched.
_POINTER = b"version https://git-lfs.github.com/spec/"
# How files begin that are no UTF-8 text; UTF-32's marks begin with UTF-16's.
_OTHERS = {
    codecs.BOM_UTF16_LE: "UTF-16 or UTF-32; convert it to UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16; convert it to UTF-8",
    codecs.BOM_UTF32_BE: "UTF-32; convert it to UTF-8",
    b"\x1f\x8b": "compressed by gzip; its name must end in .gz",
}


def find_files(patterns: str | Sequence[str], root: epath.PathLike = "") -> list[epath.Path]:
    """Returns the files that match paths or globs, sorted within each.

    Args:
      patterns: a path or several, relative to the root or absolute; `~` is the home folder. `*`, `?` and `[..]` match
        parts of a name, except in a path, or its first folders, that exists as it is written. An address that begins
        with hf:// names files on the Hugging Face hub, which are downloaded (hub/address.py).
      root: a folder, local or gs://; always taken literally, but for a `~`.

    Raises:
      FileNotFoundError: if a pattern matches no file.
      ValueError: if a pattern is no string, or has `**`, which an object store such as gs:// cannot look up at once, or
        if a file cannot be had from the hub.
    """
    files = []
    base = epath.Path(expand_home(root))
    for pattern in _as_list(patterns):
        if is_address(pattern):
            files += map(epath.Path, fetch_files(parse_address(pattern)))
            continue
        path = base / expand_home(pattern)
        found = [path] if path.is_file() else _matches(base, path, pattern)
        if not found:
            raise FileNotFoundError(f"no file {str(path)!r} (path {pattern!r} under the data root {str(root)!r})")
        files += found
    return files


def exists(patterns: str | Sequence[str], root: epath.PathLike = "") -> bool:
    """Returns whether all paths and globs have files; what is on the hub is not asked for, but taken to be there."""
    try:
        find_files([pattern for pattern in _as_list(patterns) if not is_address(pattern)], root)
    except FileNotFoundError:
        return False
    return True


def _as_list(patterns: str | Sequence[str]) -> Sequence[str]:
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(listed, list | tuple) or not all(isinstance(pattern, str) for pattern in listed):
        raise ValueError(f"path={patterns!r}: wanted a path, a glob or a list of them")
    return listed


def _matches(base: epath.Path, path: epath.Path, pattern: str) -> list[epath.Path]:
    """Returns the files that match a path; of its folders, those that exist literally are not patterns."""
    if "**" in pattern:
        raise ValueError(f"path {pattern!r}: ** is not supported; write out the folders, with * for their names")
    literal = len(base.parts) if path.parts[: len(base.parts)] == base.parts else 1
    folder, rest = epath.Path(*path.parts[:literal]), path.parts[literal:]
    while rest and (not glob.has_magic(rest[0]) or (folder / rest[0]).exists()):
        folder, rest = folder / rest[0], rest[1:]
    if not rest or not folder.is_dir():
        return []
    escaped = epath.Path(glob.escape(str(folder)))
    return sorted(match for match in escaped.glob("/".join(rest)) if match.is_file())


def rows(path: epath.Path, text_unit: str = "file") -> Iterator[tuple[str, dict | BadLine]]:
    """Yields the rows of a file, each with its place ("file:line"); for a broken row a BadLine.

    A row is broken too if one of its strings is no text: bytes that are not UTF-8, lone surrogates, NUL. Byte order
    marks of UTF-8 are left out.

    Args:
      path: ends in one of ENDINGS, optionally followed by .gz. JSONL: an object a line (blank lines are skipped); JSON:
        a list of objects, or an object a line as in JSONL; CSV (RFC 4180): a header, then rows; text: rows of one
        field, `text`; Parquet: rows of its columns.
      text_unit: "file" (a text file is one row) or "line" (each line that is not blank is one).

    Raises:
      ValueError: if the ending or the unit is unknown, or the file's content is not of its format, or is a pointer of
        Git LFS.
    """
    name = str(path)
    ending = next((ending for ending in ENDINGS if name.removesuffix(".gz").endswith(ending)), None)
    if ending is None:
        raise ValueError(
            f"{name}: unknown format; wanted a name that ends in {', '.join(ENDINGS)}, or with .gz after it"
        )
    if text_unit not in ("file", "line"):
        raise ValueError(f'text_unit={text_unit!r}: choose "file" or "line"')
    text = _text_lines if text_unit == "line" else _text
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".txt": text, ".parquet": parquet_rows}
    try:
        with path.open("rb") as stored:
            _refuse_pointer(name, stored)
            with gzip.open(stored) if name.endswith(".gz") else stored as file:
                for place, row in readers[ending](name, file):
                    fault = "" if isinstance(row, BadLine) else no_text(row)
                    yield place, BadLine(place, fault) if fault else row
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{name}: the gzip file is broken ({error}); fetch it again") from error


def _refuse_pointer(name: str, file: io.BufferedIOBase) -> None:
    """Raises ValueError if a file is a pointer of Git LFS: to train on its three lines would be an error in silence."""
    begin = file.read(len(_POINTER))
    file.seek(0)
    if begin == _POINTER:
        raise ValueError(
            f"{name}: a pointer of Git LFS, not the file that it stands for; run `git lfs pull` in its repository, or "
            "download the file from where it is published"
        )


def _jsonl(name: str, file: io.BufferedIOBase) -> Iterator[tuple[str, dict | BadLine]]:
    for number, line in enumerate(_lines(name, file), 1):
        place = f"{name}:{number}"
        if not line.strip():
            continue
        try:
            row = _parsed(line)
        except ValueError as error:
            yield place, BadLine(place, f"not JSON ({error}); the line begins {line[:60]!r}")
            continue
        yield place, row if isinstance(row, dict) else BadLine(place, _not_an_object(row))


def _is_jsonl(file: io.BufferedIOBase) -> bool:
    """Returns whether a .json file has an object a line, as many sets on the hub do, and more than one."""
    lines = (line for line in file if line.strip())
    first, second = next(lines, b""), next(lines, b"")
    file.seek(0)
    try:
        return isinstance(json.loads(first.removeprefix(codecs.BOM_UTF8)), dict) and bool(second)
    except (ValueError, RecursionError):
        return False


def _json(name: str, file: io.BufferedIOBase) -> Iterator[tuple[str, dict | BadLine]]:
    if _is_jsonl(file):
        yield from _jsonl(name, file)
        return
    try:
        loaded = _parsed("".join(_lines(name, file)))
    except ValueError as error:
        raise ValueError(f"{name}: not JSON ({error}); name a file with an object a line .jsonl") from error
    if not isinstance(loaded, list):
        raise ValueError(f"{name}: contains a {type(loaded).__name__}, wanted a list of objects")
    for index, row in enumerate(loaded):
        place = f"{name}:item {index}"
        yield place, row if isinstance(row, dict) else BadLine(place, _not_an_object(row))


def _csv(name: str, file: io.BufferedIOBase) -> Iterator[tuple[str, dict | BadLine]]:
    # The lines of some old programs end in a single carriage return.
    lines = (part for line in _lines(name, file) for part in re.findall("[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", line))
    found = csv_rows(lines)
    number, header = next(found, (0, []))
    if isinstance(header, str):
        raise ValueError(f"{name}:{number}: the header is {header}")
    if len(set(header)) < len(header):
        raise ValueError(f"{name}:{number}: the header has a column twice: {header}")
    for number, row in found:
        place = f"{name}:{number}"
        if isinstance(row, str):
            yield place, BadLine(place, row)
        elif len(row) != len(header):
            yield place, BadLine(place, f"{len(row)} columns, the header has {len(header)}: {header}")
        else:
            yield place, dict(zip(header, row, strict=True))


def _text(name: str, file: io.BufferedIOBase) -> Iterator[tuple[str, dict]]:
    text = "".join(_lines(name, file))
    if text.strip():
        yield name, {"text": text}


def _text_lines(name: str, file: io.BufferedIOBase) -> Iterator[tuple[str, dict]]:
    for number, line in enumerate(_lines(name, file), 1):
        if line.strip():
            yield f"{name}:{number}", {"text": line.removesuffix("\n").removesuffix("\r")}


def _lines(name: str, file: io.BufferedIOBase) -> Iterator[str]:
    """Yields the lines with their ends, without byte order marks: files put together have one in the middle, too."""
    for number, line in enumerate(file):
        if number == 0 and (other := next((begin for begin in _OTHERS if line.startswith(begin)), None)):
            raise ValueError(f"{name}: the file is {_OTHERS[other]}")
        yield decode(line).removeprefix("\ufeff")


def _parsed(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, object]]) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has the field {next(name for name in names if names.count(name) > 1)!r} twice")
    return row


def _not_an_object(row: object) -> str:
    return f"a {type(row).__name__}, wanted an object with fields"
