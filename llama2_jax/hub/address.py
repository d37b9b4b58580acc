"""Addresses of files and models on the Hugging Face hub.

    hf://datasets/<org>/<name>[@<revision>]/<path>    files of a data set; *, ? and [..] match parts of a name,
                                                      except in what exists as it is written
    hf://<org>/<name>[@<revision>]                    a model

A revision is a branch, a tag or a commit; without one it is the branch "main". A branch moves: only a commit, all 40
digits of its hash, names the same files for ever.
"""

import dataclasses
import os
import re
import urllib.parse

SCHEME = "hf://"
MAIN = "main"
_WILDCARDS = "*?["
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = r"(?P<repository>[\w.-]+/[\w.-]+)"
# The hub's own references are the only revisions that may have a slash in an address.
_REVISION = r"(?:@(?P<revision>refs/(?:pr/\d+|convert/[\w.-]+)|[^/@]+))?"
_ADDRESS = re.compile(rf"hf://(?P<datasets>datasets/)?{_REPOSITORY}{_REVISION}(?:/(?P<path>.*))?")
# The first parts of addresses that are not an organisation.
_OTHER_KINDS = ("datasets", "models", "spaces", "buckets", "kernels")


@dataclasses.dataclass(frozen=True)
class Address:
    """A repository at a revision, and perhaps a path in it.

    Attributes:
      kind: "dataset" or "model".
      repository: <org>/<name>.
      revision: a branch, a tag or a commit.
      path: a file or a glob; "" for the whole repository.
    """

    kind: str
    repository: str
    revision: str = MAIN
    path: str = ""

    def __str__(self) -> str:
        quoted = urllib.parse.quote(self.revision, safe="/" if self.revision.startswith("refs/") else "")
        revision = "" if self.revision == MAIN else f"@{quoted}"
        path = f"/{self.path}" if self.path else ""
        return f"{SCHEME}{'datasets/' if self.kind == 'dataset' else ''}{self.repository}{revision}{path}"

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a commit, which cannot move."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def is_glob(self) -> bool:
        """Whether the path may match several files: it does if there is no file of that very name."""
        return has_wildcard(self.path)

    @property
    def version(self) -> str:
        """The address without the path, with the revision always written out: the key of a commit in a record."""
        return f"{dataclasses.replace(self, revision=MAIN, path='')}@{self.revision}"

    @property
    def copy(self) -> str:
        """Where a copy of the same files lies in a folder of data: <org>/<name>/<path>."""
        return f"{self.repository}/{self.path}"

    def at(self, commit: str) -> "Address":
        """Returns the address at another revision."""
        return dataclasses.replace(self, revision=commit)


def has_wildcard(text: str) -> bool:
    """Returns whether a path or a part of one has a wildcard."""
    return any(mark in text for mark in _WILDCARDS)


def is_address(path: object) -> bool:
    """Returns whether a path is an address on the hub."""
    return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(SCHEME)


def parse_address(text: str) -> Address:
    """Returns the parts of an address.

    Raises:
      ValueError: if it has another form.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or found["repository"].split("/")[0] in _OTHER_KINDS:
        raise ValueError(
            f"{text!r} is no address on the hub; wanted hf://datasets/<org>/<name>[@<revision>]/<path> for data, "
            "hf://<org>/<name>[@<revision>] for a model"
        )
    path = (found["path"] or "").strip("/")
    if "**" in path or ".." in path.split("/"):
        raise ValueError(f"{text!r}: ** and .. are not supported; write out the folders, with * for their names")
    revision = urllib.parse.unquote(found["revision"] or MAIN)
    return Address("dataset" if found["datasets"] else "model", found["repository"], revision, path)
