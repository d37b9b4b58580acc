"""Files of the hub are downloaded once, at one commit; what goes wrong is said in one line."""

import dataclasses
import sys

import pytest

from llama2_jax.hub.address import parse_address
from llama2_jax.hub.errors import HubError
from llama2_jax.hub.fetch import commit_of, fetch_files, fetch_folder

FILES = {
    "README.md": "about",
    "all.jsonl": "{}",
    "data/a-0.jsonl": "first",
    "data/a-1.jsonl": "second",
    "data/b.csv": "third",
    "data/deep/a-2.jsonl": "fourth",
}


@pytest.fixture
def published(hub):
    hub.commit = hub.publish("datasets/org/set", FILES)
    return hub


def texts(address):
    return {path.name: path.read_text() for path in fetch_files(parse_address(address))}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/b.csv", ["data/b.csv"]),
        ("data/*.jsonl", ["data/a-0.jsonl", "data/a-1.jsonl"]),
        ("data/a-[1-9].jsonl", ["data/a-1.jsonl"]),
        ("*.jsonl", ["all.jsonl"]),
        ("d*/?.csv", ["data/b.csv"]),
        ("data/*/*", ["data/deep/a-2.jsonl"]),
    ],
)
def test_only_what_matches_is_downloaded(published, path, expected):
    assert texts(f"hf://datasets/org/set/{path}") == {name.split("/")[-1]: FILES[name] for name in expected}
    assert sorted(published.downloads()) == expected


@pytest.mark.parametrize("path", ["data/b.csv", "data/*.jsonl"])
def test_a_second_read_needs_no_connection(published, path):
    first = texts(f"hf://datasets/org/set/{path}")
    sent = len(published.downloads())
    assert texts(f"hf://datasets/org/set/{path}") == first
    assert len(published.downloads()) == sent
    published.stop()
    assert texts(f"hf://datasets/org/set/{path}") == first
    assert texts(f"hf://datasets/org/set@{published.commit}/{path}") == first


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("b[1].jsonl", ["b[1].jsonl"]),
        ("q?.jsonl", ["q?.jsonl"]),
        ("b[2].jsonl", ["b2.jsonl"]),
        ("v[2]/x.jsonl", ["v[2]/x.jsonl"]),
        ("v[2]/*.jsonl", ["v[2]/x.jsonl", "v[2]/y.jsonl"]),
        ("v[3]/*.jsonl", ["v3/x.jsonl"]),
        ("*/x.jsonl", ["v2/x.jsonl", "v3/x.jsonl", "v[2]/x.jsonl"]),
    ],
)
def test_a_path_that_exists_is_that_path(hub, path, expected):
    names = ["b[1].jsonl", "b1.jsonl", "b2.jsonl", "q?.jsonl", "qa.jsonl"]
    folders = ["v[2]/x.jsonl", "v[2]/y.jsonl", "v2/x.jsonl", "v3/x.jsonl"]
    hub.publish("datasets/org/set", {name: name for name in (*names, *folders)})
    found = fetch_files(parse_address(f"hf://datasets/org/set/{path}"))
    assert [file.read_text() for file in found] == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [("*.jsonl", ["a.jsonl"]), (".*.jsonl", [".b.jsonl"]), ("*/*", ["d/x"]), (".d/*", [".d/x"])],
)
def test_hidden_files_are_left_out_as_a_shell_does(hub, path, expected):
    hub.publish("datasets/org/set", {name: name for name in ("a.jsonl", ".b.jsonl", "d/x", "d/.y", ".d/x", ".d/.y")})
    found = fetch_files(parse_address(f"hf://datasets/org/set/{path}"))
    assert [file.read_text() for file in found] == expected


@pytest.mark.parametrize("damaged", ["", "[", "null", "{}", "[1]", "[]"])
def test_a_damaged_listing_in_the_cache_is_asked_for_again(published, tmp_path, damaged):
    first = texts("hf://datasets/org/set/data/*.jsonl")
    (listing,) = tmp_path.glob("hub cache/*/listings/*/*.json")
    whole = listing.read_text()
    listing.write_text(damaged)
    assert texts("hf://datasets/org/set/data/*.jsonl") == first
    assert listing.read_text() == whole


@pytest.mark.parametrize("path", ["all.jsonl", "*.jsonl"])
def test_a_cache_that_cannot_be_written_is_named(published, tmp_path, monkeypatch, path):
    (tmp_path / "a file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "a file"))
    with pytest.raises(HubError, match=r"hf://datasets/org/set\S+: .*/a file.*: .*HF_HUB_CACHE"):
        texts(f"hf://datasets/org/set@{published.commit}/{path}")


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"[]", b"{}", b"null", b'[{"type": "file"}]'])
@pytest.mark.parametrize("verb", ["revision", "tree"])
def test_an_answer_that_is_not_the_hub_s_is_named_with_its_address(published, verb, body):
    published.instead[verb] = body
    with pytest.raises(HubError, match=r"^hf://datasets/org/set\S*: (what came back is no answer|no file matches)"):
        texts("hf://datasets/org/set/data/*.jsonl")
    published.instead.clear()
    assert len(texts("hf://datasets/org/set/data/*.jsonl")) == 2


def test_a_branch_moves_and_a_commit_does_not(published):
    before = published.commit
    published.publish("datasets/org/set", {"all.jsonl": "changed"})
    published.publish("datasets/org/set", {"all.jsonl": "of a branch"}, branch="feature/new")
    assert texts(f"hf://datasets/org/set@{before}/*.jsonl") == {"all.jsonl": "{}"}
    assert texts("hf://datasets/org/set/*.jsonl") == {"all.jsonl": "changed"}
    assert texts("hf://datasets/org/set@feature%2Fnew/*.jsonl") == {"all.jsonl": "of a branch"}
    assert commit_of(parse_address("hf://datasets/org/set")) != before


def test_a_broken_download_resumes_where_it_broke_off(published):
    content = bytes(range(256)) * 400
    published.publish("datasets/org/set", {"large.jsonl": content})
    published.cuts["large.jsonl"] = 50_000
    (path,) = fetch_files(parse_address("hf://datasets/org/set/large.jsonl"))
    assert path.read_bytes() == content
    ranges = [range_ for method, name, range_ in published.requests if method == "GET" and "large" in name]
    assert ranges[0] is None and len(ranges) == 2
    assert 40_000 < int(ranges[1].removeprefix("bytes=").split("-")[0]) <= 50_000


def test_what_was_complete_is_not_fetched_again(published):
    published.refusals["data/a-1.jsonl"] = (403, "")
    with pytest.raises(HubError):
        texts("hf://datasets/org/set/data/*.jsonl")
    published.refusals.clear()
    assert len(texts("hf://datasets/org/set/data/*.jsonl")) == 2
    assert published.downloads().count("data/a-0.jsonl") == 1


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://datasets/org/set@v9/x.jsonl", "has no revision 'v9'"),
        ("hf://datasets/org/set/data/x.jsonl", "no file 'data/x.jsonl' there"),
        ("hf://datasets/org/set/data", "no file 'data' there"),
        ("hf://datasets/org/set/data/*.txt", "no file matches 'data/*.txt'"),
        ("hf://datasets/org/set/nowhere/*.txt", "no file 'nowhere' there"),
        ("hf://datasets/org/set", "names no file; add the path of one, or a glob"),
        ("hf://datasets/-org/set/x", "Repo id must use alphanumeric chars"),
    ],
)
def test_what_is_not_there_is_named(published, address, message):
    with pytest.raises(HubError) as error:
        fetch_files(parse_address(address))
    assert str(error.value).startswith("hf://datasets/") and message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("unknown", [(401, ""), (401, "RepoNotFound"), (404, "RepoNotFound")])
def test_an_unknown_repository_may_be_a_private_one(published, unknown):
    published.unknown = unknown
    with pytest.raises(HubError) as error:
        fetch_files(parse_address("hf://datasets/org/other/x.jsonl"))
    assert str(error.value) == (
        "hf://datasets/org/other/x.jsonl: there is no such repository, or it is private: check the name at "
        "https://huggingface.co/datasets/org/other; for a private one log in with `hf auth login`, or set HF_TOKEN"
    )


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((403, "GatedRepo"), "access is restricted: accept the licence at https://huggingface.co/datasets/org/set"),
        ((401, "GatedRepo"), "then log in with `hf auth login`, or set HF_TOKEN"),
        ((403, ""), "access was refused (403)"),
    ],
)
def test_who_may_not_read_is_told_how_to_get_in(published, refusal, message):
    published.refusals["all.jsonl"] = refusal
    with pytest.raises(HubError) as error:
        texts("hf://datasets/org/set/all.jsonl")
    assert str(error.value).startswith("hf://datasets/org/set") and message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["all.jsonl", "*.jsonl"])
def test_without_a_connection_what_was_never_read_is_an_error_of_one_line(published, path):
    published.stop()
    with pytest.raises(
        HubError, match=r"cannot be read from the hub, and is not in the cache \(.+Check the connection"
    ):
        texts(f"hf://datasets/org/set/{path}")


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", None)
    with pytest.raises(HubError, match=r'hf://datasets/org/set/x: .*pip install -e "\.\[hub\]"'):
        fetch_files(parse_address("hf://datasets/org/set/x"))


def test_a_folder_has_the_chosen_files(published):
    published.publish("org/model", {"config.json": "{}", "checkpoints/1/a/b": "x", "notes/y": "z"})
    asked = []

    def choose(names):
        asked.extend(names)
        return [name for name in names if not name.startswith("notes/")]

    folder = fetch_folder(parse_address("hf://org/model"), choose)
    assert sorted(asked) == ["checkpoints/1/a/b", "config.json", "notes/y"]
    assert (folder / "config.json").read_text() == "{}" and (folder / "checkpoints/1/a/b").read_text() == "x"
    assert not (folder / "notes").exists()
    published.stop()
    assert fetch_folder(parse_address("hf://org/model"), choose) == folder


def test_an_address_is_a_value():
    address = parse_address("hf://datasets/org/set/x")
    assert dataclasses.replace(address) == address and str(address.at("v1")) == "hf://datasets/org/set@v1/x"
