"""Where a stage reads is decided when it begins, and stays."""

import json

import pytest
from etils import epath

from llama2_jax.pipeline.origins import decide_origins, stage_origins, with_origins

TEXT = {"format": "text"}
PART = {
    "run": "a.stage",
    "limit": None,
    "inputs": {"start": "sft", "bags": ("a", "b")},
    "sources": {
        "one": {
            **TEXT, "path": "one/*.txt", "hub": {"path": "hf://datasets/org/one/*.json", "weight": 2.0}, "weight": 1.0
        },
        "two": {**TEXT, "path": ("two/a.txt", "two/b.txt"), "hub": {"path": "hf://datasets/org/two/x.json"}},
        "three": {**TEXT, "path": "three.txt", "optional": True},
        "four": {**TEXT, "path": "hf://datasets/org/four@v1/x.json"},
        "five": {**TEXT, "function": "some.function", "arguments": {"model": "hf://org/five"}},
    },
}  # fmt: skip


@pytest.fixture
def published(hub):
    hub.commits = {
        name: hub.publish(repository, {"x.json": "{}"}, branch)
        for name, repository, branch in (
            ("one", "datasets/org/one", "main"),
            ("two", "datasets/org/two", "main"),
            ("four", "datasets/org/four", "v1"),
            ("five", "org/five", "main"),
        )
    }
    return hub


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_local_files_where_they_are_else_the_hub_at_a_commit(published, tmp_path):
    touch(tmp_path, "two/a.txt", "two/b.txt")
    origins = decide_origins(PART, str(tmp_path), {})
    commits = published.commits
    assert origins == {
        "sources": {
            "sources.one": "hf://datasets/org/one/*.json",
            "sources.two": ["two/a.txt", "two/b.txt"],
            "sources.three": "",
        },
        "revisions": {
            "hf://datasets/org/one@main": commits["one"],
            "hf://datasets/org/four@v1": commits["four"],
            "hf://org/five@main": commits["five"],
        },
    }
    part = with_origins(PART, json.loads(json.dumps(origins)))
    assert {name: value for name, value in part.items() if name != "sources"} == {
        name: value for name, value in PART.items() if name != "sources"
    }
    assert part["sources"].keys() == {"one", "two", "four", "five"}
    assert part["sources"]["one"]["path"] == f"hf://datasets/org/one@{commits['one']}/*.json"
    assert part["sources"]["one"]["weight"] == 2.0 and part["sources"]["one"]["hub"] == {}
    assert list(part["sources"]["two"]["path"]) == ["two/a.txt", "two/b.txt"] and part["sources"]["two"]["hub"] == {}
    assert part["sources"]["four"]["path"] == f"hf://datasets/org/four@{commits['four']}/x.json"
    assert part["sources"]["five"]["arguments"]["model"] == f"hf://org/five@{commits['five']}"


def test_a_copy_by_hand_needs_no_commit(published, tmp_path):
    touch(tmp_path, "org/one/x.json", "org/two/x.json")
    origins = decide_origins({"sources": {name: PART["sources"][name] for name in ("one", "two")}}, str(tmp_path), {})
    assert origins == {
        "sources": {"sources.one": "org/one/*.json", "sources.two": "org/two/x.json"},
        "revisions": {},
    }
    assert not published.requests


def test_a_commit_that_the_run_has_read_is_kept(published, tmp_path):
    earlier = [{"origins": {"revisions": {"hf://datasets/org/one@main": "a" * 40}, "sources": {}}}, {"stage": "x"}]
    origins = stage_origins(PART, str(tmp_path), epath.Path(tmp_path / "stage"), earlier)
    assert origins["revisions"]["hf://datasets/org/one@main"] == "a" * 40
    assert origins["revisions"]["hf://datasets/org/two@main"] == published.commits["two"]


def test_a_stage_that_began_reads_on_from_there(published, tmp_path):
    folder = tmp_path / "stage"
    began = stage_origins(PART, str(tmp_path), epath.Path(folder), [])
    touch(folder, "started.json")
    (folder / "started.json").write_text(json.dumps({"origins": began}))
    # Another commit is published, the files are downloaded by hand, the connection is lost.
    published.publish("datasets/org/one", {"x.json": "[]"})
    touch(tmp_path, "one/x.txt", "three.txt")
    published.stop()
    assert stage_origins(PART, str(tmp_path), epath.Path(folder), []) == began


def test_a_config_without_choices_is_as_it_was():
    part = {"run": "a.stage", "steps": 3, "sources": {"one": {"path": "x.txt", "hub": {}, "optional": False}}}
    origins = decide_origins(part, "", {})
    assert origins == {"sources": {}, "revisions": {}}
    assert with_origins(part, origins) == part


def test_held_out_sources_of_replaced_ones_are_not_asked_for(tmp_path):
    """Nobody reads them: neither the hub nor a file has to have them."""
    (tmp_path / "mine.txt").write_text("mine")
    mine = {**TEXT, "path": "mine.txt"}
    part = {"sources": {"mine": mine}, "held_out": {"one": PART["sources"]["one"]}}
    origins = decide_origins(part, str(tmp_path), {})
    assert origins == {"sources": {}, "revisions": {}}
    assert with_origins(part, origins) == {"sources": {"mine": mine}, "held_out": {}}
