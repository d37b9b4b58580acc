"""A checkpoint's files are as they were written, or what is wrong with them is named."""

import json

import pytest
from etils import epath

from llama2_jax.training import manifest
from llama2_jax.training.manifest import damage, write_manifest


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """Files of a checkpoint, one of which is larger than what is summed up of its ends."""
    monkeypatch.setattr(manifest, "SAMPLE_BYTES", 100)
    for name, content in {
        "_CHECKPOINT_METADATA": b"{}",
        "meta/metadata": json.dumps({"manifest": True}).encode(),
        "params/d/large": bytes(range(250)) * 4,
        "params/d/small": b"small",
        "params/d/empty": b"",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    write_manifest(epath.Path(tmp_path))
    return epath.Path(tmp_path)


def test_whole_files_are_not_damaged(checkpoint):
    assert damage(checkpoint) == []
    (checkpoint / "_CHECKPOINT_METADATA").write_text('{"commit_timestamp": 1}')  # Orbax writes it again later
    (checkpoint / "another").write_text("what others put there")
    assert damage(checkpoint) == []


@pytest.mark.parametrize(
    ("name", "harm", "found"),
    [
        ("params/d/large", lambda path: path.write_bytes(path.read_bytes()[:-1]), "has 999 bytes, and had 1000"),
        ("params/d/large", lambda path: path.write_bytes(bytes(1000)), "has other content"),
        ("params/d/large", lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "has other content"),
        ("params/d/small", lambda path: path.write_bytes(b"smell"), "has other content"),
        ("params/d/empty", lambda path: path.unlink(), "is missing"),
        ("_CHECKPOINT_METADATA", lambda path: path.unlink(), "is missing"),
        ("meta/metadata", lambda path: path.write_bytes(b""), "has 0 bytes, and had 18"),
        ("manifest.json", lambda path: path.unlink(), "is missing"),
        ("manifest.json", lambda path: path.write_bytes(path.read_bytes()[:20]), "is not readable"),
    ],
    ids=["cut off", "zeros", "another end", "a letter", "gone", "metadata", "note", "no list", "half a list"],
)
def test_what_is_wrong_is_named(checkpoint, name, harm, found):
    harm(checkpoint / name)
    [wrong] = damage(checkpoint)
    assert wrong.startswith(f"{name} {found}")


def test_a_checkpoint_that_never_had_a_manifest_is_taken_as_it_is(checkpoint):
    (checkpoint / "manifest.json").unlink()
    (checkpoint / "meta" / "metadata").write_text(json.dumps({"arrays": {}}))
    assert damage(checkpoint) == []
