"""Hashes of content, for draws and splits that depend on what a record says and not on its place in a list."""

import hashlib
import json
from collections.abc import Mapping, Sequence


def prompt_hash(messages: Sequence[Mapping]) -> str:
    """Returns a hash of a prompt: of its messages' roles and texts. White space around a text does not count."""
    return _digest([[message["role"], message["content"].strip()] for message in messages]).hex()


def content_hash(content: object) -> str:
    """Returns a hash of a JSON value; the order of an object's fields counts."""
    return _digest(content).hex()


def uniform(*parts: object) -> float:
    """Returns a number in (0, 1) that depends only on the parts, which are JSON values; the same in every process."""
    # Of 52 bits the middle of each interval is a float64; of more, the last one would round to 1.
    return ((int.from_bytes(_digest(parts)[:8], "big") >> 12) + 0.5) / 2.0**52


def _digest(content: object) -> bytes:
    return hashlib.sha256(json.dumps(content).encode()).digest()
