"""The small files of a stage, JSON and JSONL: whole or absent, written by the first of several processes."""

import json
from collections.abc import Iterable, Mapping, Sequence

from etils import epath

from llama2_jax.sharding.processes import from_first
from llama2_jax.training.atomic_files import write_atomically


def write_text(path: epath.Path, text: str) -> None:
    """Writes a file atomically. Of several processes the first one writes and the others wait for it."""
    from_first(lambda: write_atomically(path, text))


def write_json(path: epath.Path, content: object) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: epath.Path) -> dict:
    """Reads a JSON file."""
    return json.loads(path.read_text())


def write_jsonl(path: epath.Path, records: Iterable[Mapping]) -> None:
    """Writes a JSONL file atomically."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def read_jsonl(path: epath.Path) -> list[dict]:
    """Reads a JSONL file that a stage wrote."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_all_jsonl(folders: epath.Path | Sequence[epath.Path], name: str) -> list[dict]:
    """Reads the JSONL files of one name in several stages' folders, one after the other."""
    return [row for folder in as_folders(folders) for row in read_jsonl(folder / name)]


def as_folders(value: epath.Path | Sequence[epath.Path]) -> tuple[epath.Path, ...]:
    """Returns an input of one or several folders as several."""
    return (value,) if isinstance(value, epath.Path) else tuple(value)
