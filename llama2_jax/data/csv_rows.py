"""Rows of CSV (RFC 4180) from its lines. What is not well formed is one bad row, which takes no other with it."""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator

# A field in quotes, in which a quote is written twice, or a field without any quote.
_FIELD = r'(?:"[^"]*(?:""[^"]*)*"|[^",\r\n]*)'
_RECORD = re.compile(rf"{_FIELD}(?:,{_FIELD})*(?:\r\n|\n|\r)?")


def csv_rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str] | str]]:
    """Yields each row with the number of the line in which it begins; for one that is not well formed, what is wrong.

    A quote that is not closed swallows the lines up to the next quote. After such a row reading resumes at its second
    line, so that only the first one is lost.

    Args:
      lines: with their ends; a row in quotes may go over several. Blank ones between rows are skipped.
    """
    # Fields with long answers exceed the module's default of 128 KiB.
    csv.field_size_limit(2**31 - 1)
    source, waiting = iter(lines), deque()
    number = 1
    while True:
        taken: list[str] = []
        try:
            row = next(csv.reader(_taking(waiting, source, taken), strict=True), None)
        except csv.Error as error:
            row = f"not well-formed CSV ({error})"
        if row is None:
            return
        if isinstance(row, list) and '"' in (raw := "".join(taken)) and not _RECORD.fullmatch(raw):
            row = "not well-formed CSV (a quote inside a field that does not begin with one)"
        if isinstance(row, str):
            waiting.extendleft(reversed(taken[1:]))
            yield number, f"{row}; {_hint(taken)}"
            number += 1
            continue
        if row:
            yield number, row
        number += len(taken)


def _taking(waiting: deque, source: Iterator[str], taken: list[str]) -> Iterator[str]:
    """Yields the lines that wait, then the source's; notes each."""
    while (line := waiting.popleft() if waiting else next(source, None)) is not None:
        taken.append(line)
        yield line


def _hint(taken: list[str]) -> str:
    begin = taken[0].rstrip("\r\n")[:60]
    return f"the row begins {begin!r}. A field with a quote, comma or line break is written in quotes, its quotes twice"
