"""A checkpoint's list of its own files, so that damage is reported and not trained on.

The readers of a checkpoint fail at some damage and read zeros for other: a chunk whose file is missing counts as never
written. So the manifest is written with a checkpoint, before it gets its name, and compared before it is used.
"""

import concurrent.futures
import hashlib
import json
import zlib
from collections.abc import Iterator

from etils import epath

NAME = "manifest.json"
# Of larger files only the size and a checksum of the beginning and the end are compared: this finds files that are cut
# off or empty without reading terabytes twice.
SAMPLE_BYTES = 1 << 23
# Orbax adds the time to it when the checkpoint has its name, so only its presence can be checked.
_CHANGED_LATER = "_CHECKPOINT_METADATA"


def write_manifest(checkpoint: epath.Path) -> None:
    """Writes `<checkpoint>/manifest.json`: the size and checksum of each file."""
    (checkpoint / NAME).write_text(json.dumps({"files": _summaries(checkpoint)}))


def params_digest(checkpoint: epath.Path) -> str:
    """Returns a hash of a checkpoint's parameters by the sizes and checksums of their files.

    A copy has the same one. A checkpoint with a manifest must have been compared with it (`damage`).
    """
    path = checkpoint / NAME
    files = json.loads(path.read_text())["files"] if path.exists() else _summaries(checkpoint)
    # Not Orbax's marks of what is finished, which name the folder that it was written to.
    listed = sorted((name, *files[name]) for name in files if name.startswith("params/") and not name.endswith(".txt"))
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def damage(checkpoint: epath.Path) -> list[str]:
    """Returns what is wrong with a checkpoint's files; empty if they are as they were written.

    A checkpoint without a manifest, which no training of ours has made, is not checked.
    """
    path = checkpoint / NAME
    if not path.exists():
        return [f"{NAME} is missing"] if _was_promised(checkpoint) else []
    try:
        files = json.loads(path.read_text())["files"]
    except (ValueError, KeyError, TypeError) as error:
        return [f"{NAME} is not readable: {error}"]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda name: _difference(checkpoint / name, files[name]), files)
        return [f"{name} {difference}" for name, difference in zip(files, found, strict=True) if difference]


def _was_promised(checkpoint: epath.Path) -> bool:
    """Whether the checkpoint's note says that it has a manifest."""
    try:
        return bool(json.loads((checkpoint / "meta" / "metadata").read_text()).get("manifest"))
    except (OSError, ValueError, AttributeError):
        return True  # not even the note is readable


def _summaries(checkpoint: epath.Path) -> dict[str, list[int]]:
    names = _files(checkpoint)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        return dict(zip(names, threads.map(lambda name: _summary(checkpoint / name), names), strict=True))


def _files(checkpoint: epath.Path) -> list[str]:
    return sorted(str(path.relative_to(checkpoint)) for path in files_below(checkpoint) if path.name != NAME)


def files_below(folder: epath.Path) -> Iterator[epath.Path]:
    """Yields all files below a folder; epath has no recursive glob."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def _difference(path: epath.Path, wanted: list[int]) -> str:
    if not path.exists():
        return "is missing"
    if path.name == _CHANGED_LATER:
        return ""
    size, checksum = _summary(path)
    if size != wanted[0]:
        return f"has {size} bytes, and had {wanted[0]}"
    return "has other content" if checksum != wanted[1] else ""


def _summary(path: epath.Path) -> list[int]:
    """A file's size and the CRC-32 of its beginning and end."""
    size = path.stat().length
    with path.open("rb") as file:
        checksum = zlib.crc32(file.read(SAMPLE_BYTES))
        if size > SAMPLE_BYTES:
            file.seek(max(SAMPLE_BYTES, size - SAMPLE_BYTES))
            checksum = zlib.crc32(file.read(SAMPLE_BYTES), checksum)
    return [size, checksum]
