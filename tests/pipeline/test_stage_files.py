"""Files that are whole or absent."""

import json

import pytest
from etils import epath

from llama2_jax.pipeline.stage_files import as_folders, read_all_jsonl, read_json, read_jsonl, write_json, write_jsonl


def test_json_comes_back_as_it_was_written(tmp_path):
    path = epath.Path(tmp_path) / "record.json"
    write_json(path, {"a": [1, 2.5, None], "b": "ü"})
    assert read_json(path) == {"a": [1, 2.5, None], "b": "ü"}


def test_jsonl_keeps_what_looks_like_the_end_of_a_line(tmp_path):
    rows = [{"text": "one\ntwo"}, {"text": "a\u2028b\x85c\x0bd"}, {}]
    write_jsonl(epath.Path(tmp_path) / "rows.jsonl", iter(rows))
    assert read_jsonl(epath.Path(tmp_path) / "rows.jsonl") == rows
    write_jsonl(epath.Path(tmp_path) / "none.jsonl", [])
    assert read_jsonl(epath.Path(tmp_path) / "none.jsonl") == []


def test_a_file_that_could_not_be_written_to_its_end_is_as_it_was(tmp_path, monkeypatch):
    path = epath.Path(tmp_path) / "record.json"
    write_json(path, {"old": True})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})

    def cut_off(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(path), "replace", cut_off)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"new": True})
    assert json.loads(path.read_text()) == {"old": True}


def test_a_draft_that_a_killed_run_left_is_no_hindrance(tmp_path):
    (tmp_path / ".record.json.draft").write_text('{"half')
    write_json(epath.Path(tmp_path) / "record.json", {"whole": True})
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_an_input_of_one_or_several_folders():
    one, other = epath.Path("one"), epath.Path("other")
    assert as_folders(one) == (one,)
    assert as_folders((one, other)) == (one, other)
    assert as_folders(()) == ()


def test_the_files_of_several_stages_are_read_in_order(tmp_path):
    folders = [epath.Path(tmp_path) / name for name in ("one", "two")]
    for number, folder in enumerate(folders):
        write_jsonl(folder / "rows.jsonl", [{"number": number}])
    assert read_all_jsonl(tuple(folders), "rows.jsonl") == [{"number": 0}, {"number": 1}]
    assert read_all_jsonl(folders[1], "rows.jsonl") == [{"number": 1}]
