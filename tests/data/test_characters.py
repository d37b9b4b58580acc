"""What is no text is found at any depth, and named with its field."""

import re

import pytest

from llama2_jax.data.characters import decode, no_text


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"text": "hi \ud83d"}, "field text, character 3: U\\+D83D, half of a surrogate pair"),
        ({"messages": [{"role": "user"}, {"content": "\udc00"}]}, r"field messages\[1\].content, character 0: U\+DC00"),
        ({"a": {"b": [["x", "\udfff"]]}}, r"field a.b\[0\]\[1\]"),
        ({"a": {"\ud800": 1}}, r"field a\.'\\ud800'"),
        ({"\ud800": 1}, r"field '\\ud800'"),
        ({"text": "one\ntwo \x00"}, "field text, line 2: a NUL character"),
        ({"text": decode(b"caf\xe9")}, "the byte 0xe9, which is not UTF-8 here"),
        ({"turns": ("a", "\ud800")}, r"field turns\[1\]"),
    ],
)
def test_what_is_no_text_is_named(row, fault):
    assert re.search(fault, no_text(row))


def test_text_of_all_planes_is_text():
    text = "a é 漢 \U0001f600 \ufeff \u2028 \ufffd \x7f\t\r\n\x1b"
    assert no_text({"text": text, "n": 1, "none": None, "list": [text, {"k": text}]}) == ""
    assert decode(text.encode()) == text


def test_a_deeply_nested_row_is_searched():
    row = "\ud800"
    for _ in range(900):
        row = [row]
    assert no_text({"a": row}).startswith("field a[0][0]")
