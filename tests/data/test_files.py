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


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content", "unit", "wanted"),
    [
        ("x.csv", "\ufeffa,b\n1,2\n", "file", [{"a": "1", "b": "2"}]),
        ("x.csv", '\ufeff"a",b\n1,2\n', "file", [{"a": "1", "b": "2"}]),
        ("x.jsonl", '\ufeff{"a": 1}\n\ufeff{"a": 2}\n', "file", [{"a": 1}, {"a": 2}]),
        ("x.json", '\ufeff[{"a": 1}]', "file", [{"a": 1}]),
        ("x.txt", "\ufeffCHAPTER ONE\n", "file", [{"text": "CHAPTER ONE\n"}]),
        ("x.txt", "\ufeffone\ntwo\n", "line", [{"text": "one"}, {"text": "two"}]),
        # Two files put together.
        ("x.txt", "\ufeffone\n\ufefftwo\n", "file", [{"text": "one\ntwo\n"}]),
        ("x.txt", "\ufeff\n", "line", []),
    ],
)
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, name, content, unit, wanted, ending):
    assert [row for _, row in rows(written(tmp_path, name + ending, content), unit)] == wanted


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.json", "x.jsonl", "x.txt.gz"])
def test_the_byte_order_mark_of_another_encoding_is_named(tmp_path, encoding, name):
    content = "a\nb\n".encode(encoding) if encoding.endswith(("16", "32")) else "\ufeffa\n".encode(encoding)
    with pytest.raises(ValueError, match=r"the file is UTF-(16|32).*convert it to UTF-8"):
        list(rows(written(tmp_path, name, content), "line"))


@pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.json", "x.jsonl"])
def test_a_compressed_file_with_another_name_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=r"compressed by gzip; its name must end in \.gz"):
        list(rows(written(tmp_path, name, gzip.compress(b'{"a": 1}'))))


def test_lines_may_end_as_old_programs_end_them(tmp_path):
    for end in ("\r\n", "\r"):
        path = written(tmp_path, "x.csv", end.join(("a,b", "1,2", '"3\r4",5', "")))
        assert [row for _, row in rows(path)] == [{"a": "1", "b": "2"}, {"a": "3\r4", "b": "5"}]


@pytest.mark.parametrize(
    ("name", "content", "place", "reason"),
    [
        ("x.jsonl", '{"a": 1}\n{"a": \n', "x.jsonl:2", "not JSON"),
        ("x.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "x.jsonl:2", "field a, character 0: U+DCFF"),
        ("x.jsonl", b'{"a": 1}\n{"a": \xff}\n', "x.jsonl:2", "not JSON"),
        ("x.jsonl", '{"a": 1}\n{"a": {"b": ["\\ud83d"]}}\n', "x.jsonl:2", "field a.b[0], character 0: U+D83D"),
        ("x.jsonl", '{"a": 1}\n{"a": "x\\u0000"}\n', "x.jsonl:2", "field a, character 1: a NUL character"),
        ("x.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n', "x.jsonl:2", "an object has the field 'a' twice"),
        ("x.jsonl", '{"a": 1}\n{"a": ' + "[" * 100_000 + "\n", "x.jsonl:2", "nested too deeply"),
        ("x.jsonl", '{"a": 1}\nnull\n', "x.jsonl:2", "a NoneType, wanted an object"),
        ("x.jsonl", "{}\n[1]\n", "x.jsonl:2", "a list, wanted an object"),
        ("x.json", '[{}, "b"]', "x.json:item 1", "a str, wanted an object"),
        ("x.json", b'[{"a": 1}, {"a": "\xff"}]', "x.json:item 1", "the byte 0xff, which is not UTF-8"),
        ("x.csv", "a,b\n1,2\n1,2,3\n", "x.csv:3", "3 columns, the header has 2"),
        ("x.csv", "a,b\n1,2\n1\n", "x.csv:3", "1 columns, the header has 2"),
        ("x.csv", 'a,b\n1,2\n"1\n1",2,3\n', "x.csv:3", "3 columns, the header has 2"),
        ("x.csv", 'a,b\n1,2\n1,"2\n', "x.csv:3", "not well-formed CSV"),
        ("x.csv", b"a,b\n1,2\n1,\xff\n", "x.csv:3", "field b, character 0: U+DCFF"),
        ("x.csv", "a,b\n1,2\n1,x\x00\n", "x.csv:3", "field b, character 1: a NUL character"),
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
        ("x.json", "[" * 100_000, "nested too deeply"),
        ("x.csv", "a,a\n1,2\n", "has a column twice"),
        ("x.csv", 'a,"b\n1,2\n', "x.csv:1: the header is not well-formed CSV"),
    ],
)
def test_a_file_whose_content_is_not_of_its_format_is_refused(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        list(rows(written(tmp_path, name, content)))


def test_a_text_that_is_not_utf_8_is_a_bad_line(tmp_path):
    path = written(tmp_path, "x.txt", b"one\ncaf\xe9\nthree\n")
    ((place, bad),) = rows(path)
    assert isinstance(bad, BadLine) and place == str(path)
    assert "field text, line 2: U+DCE9" in bad.reason and "the byte 0xe9, which is not UTF-8" in bad.reason
    (_, one), (place, bad), (_, three) = rows(path, "line")
    assert (one, three) == ({"text": "one"}, {"text": "three"})
    assert isinstance(bad, BadLine) and place.endswith("x.txt:2")


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"abc" * 10_000)[:-9], gzip.compress(b"abc")[:10] + b"xyz"],
    ids=("no gzip", "cut off", "garbage"),
)
def test_a_broken_gzip_file_is_refused(tmp_path, content):
    (tmp_path / "x.txt.gz").write_bytes(content)
    with pytest.raises(ValueError, match="the gzip file is broken"):
        list(rows(epath.Path(tmp_path / "x.txt.gz")))


@pytest.mark.parametrize("unit", ["file", "line"])
@pytest.mark.parametrize("name", ["x.txt", "x.jsonl", "x.json", "x.csv", "x.parquet", "x.txt.gz"])
def test_a_pointer_of_git_lfs_is_not_read_in_place_of_its_file(tmp_path, name, unit):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 499723\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(ValueError, match=rf"/{name}: a pointer of Git LFS, .* `git lfs pull`") as error:
        list(rows(epath.Path(tmp_path / name), unit))
    assert not isinstance(error.value, BadLine)  # which a source may skip


def test_globs_find_files_in_order(tmp_path):
    for name in ("b/2.jsonl", "b/1.jsonl", "a/1.jsonl", "a/other.csv"):
        written(tmp_path, name, "")

    def found(pattern):
        return [str(path.relative_to(tmp_path)) for path in find_files(pattern, tmp_path)]

    assert found("*/*.jsonl") == ["a/1.jsonl", "b/1.jsonl", "b/2.jsonl"]
    assert found(["b/2.jsonl", "a/?.jsonl"]) == ["b/2.jsonl", "a/1.jsonl"]
    assert found(str(tmp_path / "a/*.csv")) == ["a/other.csv"]


@pytest.mark.parametrize("folder", ["corpus [2026]", "a*b", "what?", "[!x]"])
def test_a_path_that_exists_is_that_path(tmp_path, folder):
    root = tmp_path / folder
    for name in ("1.jsonl", "2.jsonl", "v [1]/x.jsonl", "v [1]/y.jsonl", "z[0].jsonl"):
        written(root, name, "")

    def found(pattern, base=root):
        return [str(path.relative_to(tmp_path)) for path in find_files(pattern, base)]

    assert found("1.jsonl") == [f"{folder}/1.jsonl"]
    assert found("[12].jsonl") == [f"{folder}/1.jsonl", f"{folder}/2.jsonl"]
    assert found("z[0].jsonl") == [f"{folder}/z[0].jsonl"]
    assert found("v [1]/*.jsonl") == [f"{folder}/v [1]/x.jsonl", f"{folder}/v [1]/y.jsonl"]
    assert found(str(root / "v [1]/x.jsonl"), "") == [f"{folder}/v [1]/x.jsonl"]
    assert found(str(root / "?.jsonl"), "elsewhere") == [f"{folder}/1.jsonl", f"{folder}/2.jsonl"]
    assert found(f"{folder}/*.jsonl", tmp_path) == [f"{folder}/{name}.jsonl" for name in ("1", "2", "z[0]")]


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path, "data/x.jsonl", "")
    for pattern, root in (("x.jsonl", "~/data"), ("*.jsonl", "~/data"), ("~/data/x.jsonl", "nowhere"), ("data/*", "~")):
        assert [str(path) for path in find_files(pattern, root)] == [str(tmp_path / "data/x.jsonl")]


@pytest.mark.parametrize("pattern", ["absent.jsonl", "*.jsonl", "absent/*.jsonl"])
def test_a_path_without_files_is_refused(tmp_path, pattern):
    with pytest.raises(FileNotFoundError, match="under the data root"):
        find_files(pattern, tmp_path)


@pytest.mark.parametrize("path", [5, None, [["x.jsonl"]], {"a": 1}])
def test_what_is_no_path_is_refused(tmp_path, path):
    for look in (find_files, exists):
        with pytest.raises(ValueError, match=r"path=.*: wanted a path, a glob or a list of them"):
            look(path, tmp_path)


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
