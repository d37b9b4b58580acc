"""Addresses on the hub are read, and what is none is refused."""

import pathlib

import pytest

from llama2_jax.hub.address import Address, is_address, parse_address

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://datasets/org/name/data/*.parquet", Address("dataset", "org/name", "main", "data/*.parquet")),
        (f"hf://datasets/org/name@{COMMIT}/a.jsonl", Address("dataset", "org/name", COMMIT, "a.jsonl")),
        ("hf://org/name", Address("model", "org/name")),
        ("hf://org/name.v1_0-hf@v2.0", Address("model", "org/name.v1_0-hf", "v2.0")),
        ("hf://datasets/o/n@refs/convert/parquet/d/0", Address("dataset", "o/n", "refs/convert/parquet", "d/0")),
        ("hf://datasets/o/n@refs/pr/3/x.csv", Address("dataset", "o/n", "refs/pr/3", "x.csv")),
        ("hf://datasets/o/n@feature%2Fnew/x.csv", Address("dataset", "o/n", "feature/new", "x.csv")),
    ],
)  # fmt: skip
def test_an_address_has_a_kind_a_repository_a_revision_and_a_path(text, address):
    assert is_address(text)
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "hf://datasets/org", "hf://name", "hf://", "hf://spaces/org/name", "hf://models/org/name",
        "hf://datasets/org/name@/x", "hf://datasets//name/x", "hf:/org/name",
    ],
)  # fmt: skip
def test_another_form_is_refused(text):
    with pytest.raises(ValueError, match="is no address on the hub; wanted hf://datasets/<org>/<name>"):
        parse_address(text)


@pytest.mark.parametrize("path", ["**/x.jsonl", "data/../../x.jsonl"])
def test_a_path_stays_in_its_folder(path):
    with pytest.raises(ValueError, match="are not supported"):
        parse_address(f"hf://datasets/org/name/{path}")


def test_only_a_whole_hash_is_a_commit():
    assert parse_address(f"hf://org/name@{COMMIT}").is_commit
    assert not any(parse_address(f"hf://org/name@{other}").is_commit for other in ("main", COMMIT[:12], COMMIT.upper()))


def test_local_paths_are_no_addresses():
    assert not any(map(is_address, ("sft/x.jsonl", "gs://bucket/x", "/hf:/x", pathlib.Path("x"), None, ("hf://a/b",))))
