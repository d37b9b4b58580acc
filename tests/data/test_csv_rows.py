"""CSV that is not well formed costs the row in which it is, and no other."""

import pytest

from llama2_jax.data.csv_rows import csv_rows


def read(text):
    return list(csv_rows(text.splitlines(keepends=True)))


def good(text):
    return [(number, row) for number, row in read(text) if isinstance(row, list)]


def test_rows_come_with_the_line_in_which_they_begin():
    text = 'a,b\r\n"x\ny",2\r\n\r\n"he said ""no""","1,5"\nlast,'
    assert read(text) == [(1, ["a", "b"]), (2, ["x\ny", "2"]), (5, ['he said "no"', "1,5"]), (6, ["last", ""])]


def test_an_open_quote_costs_its_row_alone():
    rows = read('q,a\nHow tall?,"about 3 m\nHow wide?,2 m\nHow deep?,1 m\nHow old?,9 years\n')
    (bad,) = [(number, row) for number, row in rows if isinstance(row, str)]
    assert bad[0] == 2 and "not well-formed CSV (unexpected end of data)" in bad[1] and "How tall?" in bad[1]
    assert [row for row in rows if row != bad] == [
        (1, ["q", "a"]), (3, ["How wide?", "2 m"]), (4, ["How deep?", "1 m"]), (5, ["How old?", "9 years"]),
    ]  # fmt: skip


def test_an_open_quote_ends_at_the_next_quote_and_the_rows_between_are_read():
    text = 'q,a\n1,"open\n2,b\n3,"c"\n4,"d ""e"""\n'
    assert good(text) == [(1, ["q", "a"]), (3, ["2", "b"]), (4, ["3", "c"]), (5, ["4", 'd "e"'])]


@pytest.mark.parametrize("row", ['1,5" nails', '1,a "b" c', '1,"a"b', '1,"a" ', '1, "a"', '1,"a""', '"1,a'])
def test_a_stray_quote_makes_a_bad_row(row):
    rows = read(f"q,a\n0,x\n{row}\n2,y\n")
    assert good(f"q,a\n0,x\n{row}\n2,y\n") == [(1, ["q", "a"]), (2, ["0", "x"]), (4, ["2", "y"])]
    assert [number for number, found in rows if isinstance(found, str)] == [3]


def test_the_lines_of_a_broken_row_of_several_lines_are_not_taken_for_rows():
    text = 'q,a\nx,"line one\nline "two", and\nmore, text"\ny,z\n'
    assert good(text) == [(1, ["q", "a"]), (5, ["y", "z"])]


def test_a_long_field_is_read():
    assert good('q\n"' + "x" * 200_000 + '"\n')[1] == (2, ["x" * 200_000])
