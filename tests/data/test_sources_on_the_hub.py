"""A source is read from the data root, or from a copy there of what is published, or from the hub."""

import gzip
import json

import pytest

from llama2_jax.data.sources import as_source, available, read, read_all
from llama2_jax.hub.errors import HubError

SOURCE = {
    "path": "mine/*.jsonl.gz",
    "format": "text",
    "hub": {"path": "hf://datasets/org/set/data/*.json", "columns": {"text": "TEXT"}, "weight": 3.0},
}


@pytest.fixture
def published(hub):
    hub.publish("datasets/org/set", {"data/a.json": '{"TEXT": "of the hub"}\n{"TEXT": "too"}'})
    return hub


def write(path, text):
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())


def test_the_hub_is_a_path_like_any_other(published, tmp_path):
    source = {"path": SOURCE["hub"]["path"], "format": "text", "columns": {"text": "TEXT"}}
    assert [row["text"] for row in read(source, tmp_path, seed=0)] == ["of the hub", "too"]


def test_local_files_come_first(published, tmp_path):
    write(tmp_path / "mine/x.jsonl.gz", '{"text": "local"}')
    assert read(SOURCE, tmp_path, seed=0) == [{"text": "local"}]
    assert available(SOURCE, tmp_path) == as_source(SOURCE)
    assert not published.requests


def test_then_a_copy_of_the_published_files(published, tmp_path):
    write(tmp_path / "org/set/data/a.json", json.dumps([{"TEXT": "copied by hand"}]))
    assert read(SOURCE, tmp_path, seed=0) == [{"text": "copied by hand"}]
    assert not published.requests


def test_then_the_hub_with_the_fields_that_differ_there(published, tmp_path):
    assert [row["text"] for row in read(SOURCE, tmp_path, seed=0)] == ["of the hub", "too"]
    found = available(SOURCE, tmp_path)
    assert (found.path, found.weight, found.hub) == (SOURCE["hub"]["path"], 3.0, {})


def test_an_optional_source_is_left_out_of_several(tmp_path, caplog):
    write(tmp_path / "here/x.jsonl", '{"text": "a"}')
    sources = {
        "here": {"path": "here/x.jsonl", "format": "text", "optional": True},
        "absent": {"path": "absent/x.jsonl", "format": "text", "optional": True},
    }
    assert read_all(sources, tmp_path, seed=0) == {"here": [{"text": "a", "source": "here"}]}
    assert "absent/x.jsonl" in caplog.text and "left out" in caplog.text


def test_an_empty_path_turns_the_hub_off(published, tmp_path):
    with pytest.raises(FileNotFoundError, match="mine/"):
        read({**SOURCE, "hub": {**SOURCE["hub"], "path": ""}}, tmp_path, seed=0)
    assert not published.requests


def test_a_mistyped_data_root_is_no_reason_to_download(published, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the data root '.*/dta' is not a folder"):
        read(SOURCE, tmp_path / "dta", seed=0)


def test_an_error_of_the_hub_names_its_address(published, tmp_path):
    published.refusals["data/a.json"] = (403, "GatedRepo")
    with pytest.raises(HubError, match=r"hf://datasets/org/set@\w{40}/data/a\.json: access is restricted"):
        read(SOURCE, tmp_path, seed=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hub": {"format": "text"}}, "wanted its path, hf://datasets/<org>/<name>"),
        ({"hub": {"path": "sft/x.jsonl"}}, "wanted its path, hf://datasets/<org>/<name>"),
        ({"path": "", "function": "a.b"}, "hub and optional belong to a path"),
    ],
)
def test_a_wrong_hub_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        as_source({**SOURCE, **fields})


def test_a_wrong_field_of_the_hub_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"has no field 'colums' \(did you mean 'columns'"):
        available({**SOURCE, "hub": {**SOURCE["hub"], "colums": {}}}, tmp_path)
