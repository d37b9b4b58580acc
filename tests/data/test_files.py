"""Every kind of file is read, and its errors are reported with their place."""

import gzip
import json
import sys

import pyarrow
import pyarrow.parquet
import pytest
from etils import epath

from llama2_jax.data.files import BadLine, exists, find_files, rows


def written(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return epath.Path(path)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_each_format_yields_its_rows_and_places(tmp_path, ending):
    records = [{"a": "1", "b": "é"}, {"a": "2", "b": "x\ny"}]
    contents = {
        "x.jsonl": "\n".join(map(json.dumps, records)) + "\n\n",
        "x.json": json.dumps(records),
        "x.csv": 'a,b\n1,é\n2,"x\ny"\n',
    }
    for name, content in contents.items():
        path = written(tmp_path, name + ending, content)
        assert [row for _, row in rows(path)] == records
    places = [place.rpartition("/")[2] for place, _ in rows(written(tmp_path, f"y.jsonl{ending}", "{}\n\n{}"))]
    assert places == [f"y.jsonl{ending}:1", f"y.jsonl{ending}:3"]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_json_files_with_an_object_a_line_are_read_as_jsonl(tmp_path, ending):
    path = written(tmp_path, f"c4.json{ending}", '{"text": "a"}\n{"text": "b"}\n{"text": \n')
    *good, (place, bad) = rows(path)
    assert [row for _, row in good] == [{"text": "a"}, {"text": "b"}]
    assert isinstance(bad, BadLine) and place.endswith(f"c4.json{ending}:3")


def test_parquet_files_have_rows_of_their_columns(tmp_path):
    table = {"text": ["a", None, "ü"] * 700, "turns": [[{"from": "human", "value": "x"}], [], None] * 700}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet", row_group_size=1000)
    found = list(rows(epath.Path(tmp_path / "x.parquet")))
    assert [row for _, row in found] == [
        dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)
    ]
    assert found[2000][0] == f"{tmp_path}/x.parquet:row 2000"


def test_without_pyarrow_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r'x\.parquet: .*pip install -e "\.\[hub\]"'):
        list(rows(written(tmp_path, "x.parquet", "")))


def test_a_text_file_is_one_record_or_one_a_line(tmp_path):
    path = written(tmp_path, "x.txt", "one\n\ntwo\r\n")
    assert [row for _, row in rows(path)] == [{"text": "one\n\ntwo\r\n"}]
    assert [(place[-1], row["text"]) for place, row in rows(path, "line")] == [("1", "one"), ("3", "two")]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = written(tmp_path, "x.csv", "\ufeffa,b\n1,2\n")
    assert [row for _, row in rows(path)] == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    ("name", "content", "place", "reason"),
    [
        ("x.jsonl", '{"a": 1}\n{"a": \n', "x.jsonl:2", "not JSON"),
        ("x.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "x.jsonl:2", "not JSON"),
        ("x.jsonl", "{}\n[1]\n", "x.jsonl:2", "a list, wanted an object"),
        ("x.json", '[{}, "b"]', "x.json:item 1", "a str, wanted an object"),
        ("x.csv", "a,b\n1,2\n1,2,3\n", "x.csv:3", "3 columns, the header has 2"),
    ],
)
def test_a_broken_row_comes_with_its_place(tmp_path, name, content, place, reason):
    *good, (found, bad) = rows(written(tmp_path, name, content))
    assert len(good) == 1
    assert isinstance(bad, BadLine)
    assert found.endswith(place) and bad.place == found and reason in str(bad)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.arrow", "", "unknown format; wanted a name that ends in .jsonl"),
        ("x.parquet", "PAR1", "not a Parquet file, or a broken one"),
        ("x.json", "{", "not JSON"),
        ("x.json", "{}", "contains a dict, wanted a list"),
        ("x.txt", b"\xff\xfe", "not UTF-8"),
        ("x.csv", b"a\n\xff\xfe\n", "not UTF-8"),
        ("x.json", b'["\xff"]', "not UTF-8"),
        ("x.csv", "a,a\n1,2\n", "has a column twice"),
    ],
)
def test_a_file_whose_content_is_not_of_its_format_is_refused(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        list(rows(written(tmp_path, name, content)))


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"abc" * 10_000)[:-9], gzip.compress(b"abc")[:10] + b"xyz"],
    ids=("no gzip", "cut off", "garbage"),
)
def test_a_broken_gzip_file_is_refused(tmp_path, content):
    (tmp_path / "x.txt.gz").write_bytes(content)
    with pytest.raises(ValueError, match="the gzip file is broken"):
        list(rows(epath.Path(tmp_path / "x.txt.gz")))


def test_globs_find_files_in_order(tmp_path):
    for name in ("b/2.jsonl", "b/1.jsonl", "a/1.jsonl", "a/other.csv"):
        written(tmp_path, name, "")

    def found(pattern):
        return [str(path.relative_to(tmp_path)) for path in find_files(pattern, tmp_path)]

    assert found("*/*.jsonl") == ["a/1.jsonl", "b/1.jsonl", "b/2.jsonl"]
    assert found(["b/2.jsonl", "a/?.jsonl"]) == ["b/2.jsonl", "a/1.jsonl"]
    assert found(str(tmp_path / "a/*.csv")) == ["a/other.csv"]


@pytest.mark.parametrize("pattern", ["absent.jsonl", "*.jsonl", "absent/*.jsonl"])
def test_a_path_without_files_is_refused(tmp_path, pattern):
    with pytest.raises(FileNotFoundError, match="under the data root"):
        find_files(pattern, tmp_path)


def test_folders_of_any_depth_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\*\* is not supported"):
        find_files("**/*.jsonl", tmp_path)


def test_files_of_the_hub_are_found_among_local_ones(tmp_path, hub):
    hub.publish("datasets/org/set", {"data/a.jsonl": "{}", "data/b.jsonl": "{}", "c.csv": "a"})
    written(tmp_path, "mine.jsonl", "{}")
    found = find_files(["mine.jsonl", "hf://datasets/org/set/data/*.jsonl"], tmp_path)
    assert [path.name for path in found] == ["mine.jsonl", "a.jsonl", "b.jsonl"]
    assert all(path.is_file() for path in found)


def test_paths_exist_or_not_and_the_hub_is_not_asked(tmp_path):
    written(tmp_path, "a/1.jsonl", "")
    assert exists("a/*.jsonl", tmp_path) and exists(("a/1.jsonl", "hf://datasets/org/set/x.jsonl"), tmp_path)
    assert not exists("b/*.jsonl", tmp_path) and not exists(["a/*.jsonl", "b.jsonl"], tmp_path)
