"""Characters that are no text: bytes that are not UTF-8, lone surrogates, NUL."""

import re
from collections.abc import Iterator

# Bytes that are not UTF-8 are decoded to U+DC80 .. U+DCFF (the error handler "surrogateescape").
_NO_TEXT = re.compile("[\ud800-\udfff\x00]")


def decode(content: bytes) -> str:
    """Returns UTF-8 as text, each byte that is not UTF-8 as a surrogate, which `no_text` reports with its field."""
    return content.decode("utf-8", "surrogateescape")


def no_text(row: object) -> str:
    """Returns what is no text in a row's strings, at any depth: the field and the character; "" if all is well."""
    return next((fault for field, text in _strings(row) if (fault := no_text_in(text, field))), "")


def no_text_in(text: str, field: str) -> str:
    """Returns what is no text in a string; "" if all is well."""
    if _is_text(text):
        return ""
    found = _NO_TEXT.search(text)
    line = text.count("\n", 0, found.start()) + 1
    place = f"character {found.start()}" if line == 1 else f"line {line}"
    return f"field {field}, {place}: {_described(ord(found.group()))}. Repair the text, or leave it out"


def _is_text(text: str) -> bool:
    """Whether all of it is text; encoding is ten times as fast as searching."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


def _described(code: int) -> str:
    if code == 0:
        return "a NUL character, which text does not have; it may be binary, or UTF-16"
    byte = f" or the byte 0x{code - 0xDC00:02x}, which is not UTF-8 here" if 0xDC80 <= code <= 0xDCFF else ""
    return f"U+{code:04X}, half of a surrogate pair, which is not Unicode text{byte}"


def _strings(row: object) -> Iterator[tuple[str, str]]:
    """Yields all strings in mappings and lists, each with its path; without recursion, since rows nest to any depth."""
    waiting = [("", row)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, dict):
            names = [(str(name), item) for name, item in value.items()]
            yield from ((f"{path}.{name!a}" if path else f"{name!a}", name) for name, _ in names)
            waiting += [(f"{path}.{name}" if path else name, item) for name, item in reversed(names)]
        elif isinstance(value, list | tuple):
            waiting += [(f"{path}[{index}]", item) for index, item in reversed(list(enumerate(value)))]
