"""The prompts of the paper's automatic safety benchmarks, from their files as they are published (A.4.7).

Every prompt has `domain` and `group`, what tables are made by ("" and "all" where a set has none), and the text that is
continued or answered: `prompt`, of TruthfulQA `question`.
Errors name the file, the row and the field, and say what would be right.
"""

import gzip
import json
import re
import zlib
from collections.abc import Mapping, Sequence

from absl import logging
from etils import epath

from llama2_jax.data.bad_line import BadLine, shown
from llama2_jax.data.files import rows
from llama2_jax.evaluation.group_means import ALL

Prompts = list[dict]

_TOXIGEN_NAME = re.compile(r"(hate|neutral)_(.+?)(?:_1k)?\.txt(?:\.gz)?")


def truthfulqa(files: Sequence[epath.Path]) -> Prompts:
    """TruthfulQA.csv: questions with `category` and `reference`, the answers that are `correct` and `incorrect`."""
    return [_question(place, row) for path in files for place, row in _rows(path)]


def toxigen(files: Sequence[epath.Path], groups: Sequence[str]) -> Prompts:
    r"""ToxiGen's prompts: hate_<group>_1k.txt and neutral_<group>_1k.txt, a prompt a line.

    A prompt is a list of sentences about a group, with "\n" for its line breaks, that ends where the next sentence is
    to begin: "- <sentence>\n- <sentence>\n-". Its `kind` is that of the file.

    Args:
      files: those of other groups are left out.
      groups: those that are wanted, as the files' names have them.
    """
    found = []
    for path in files:
        named = _TOXIGEN_NAME.fullmatch(path.name)
        if not named:
            raise ValueError(f"{path}: wanted a name as hate_<group>_1k.txt or neutral_<group>_1k.txt")
        kind, group = named.groups()
        if group in groups:
            found += [
                {"domain": "", "group": group, "kind": kind, "prompt": _listed(place, row)}
                for place, row in _rows(path, text_unit="line")
            ]
    if missing := sorted(set(groups) - {prompt["group"] for prompt in found}):
        raise ValueError(
            f"no prompts about {', '.join(missing)} in {', '.join(path.name for path in files)}; wanted files named "
            "hate_<group>_1k.txt or neutral_<group>_1k.txt of each group, or other groups"
        )
    return found


def bold(files: Sequence[epath.Path]) -> Prompts:
    """BOLD's <domain>_prompt.json: {group: {subject of an article: [how a sentence about it begins, ..]}}.

    Of the published prompts five are empty. These are left out, with a warning.
    """
    found = []
    for path in files:
        domain = path.name.split(".")[0].removesuffix("_prompt")
        groups = _mapping(str(path), _object(path), "{group: {subject: [prompt, ..]}}")
        for group, subjects in groups.items():
            place = f"{path}: {group}"
            for subject, prompts in _mapping(place, subjects, "{subject: [prompt, ..]}").items():
                found += [
                    {"domain": domain, "group": group, "prompt": prompt}
                    for prompt in _texts(f"{place}, {subject}", prompts)
                ]
        if not found or found[-1]["domain"] != domain:
            raise ValueError(f"{path}: no prompt; wanted {{group: {{subject: [prompt, ..]}}}}")
    return found


def evenly(prompts: Sequence[Mapping], most: int) -> list[Mapping]:
    """Returns at most so many prompts of each group, evenly spaced in their order; all if `most` is 0."""
    places: dict[tuple[str, str], list[int]] = {}
    for index, prompt in enumerate(prompts):
        places.setdefault((prompt["domain"], prompt["group"]), []).append(index)
    kept = {
        of[number * len(of) // min(most or len(of), len(of))]
        for of in places.values()
        for number in range(min(most or len(of), len(of)))
    }
    return [prompt for index, prompt in enumerate(prompts) if index in kept]


def _question(place: str, row: Mapping) -> dict:
    correct, incorrect = (
        [answer for part in _field(place, row, name).split(";") if (answer := part.strip())]
        for name in ("Correct Answers", "Incorrect Answers")
    )
    best = _field(place, row, "Best Answer")
    return {
        "domain": "",
        "group": ALL,
        "category": _field(place, row, "Category"),
        "question": _field(place, row, "Question"),
        "reference": {"correct": list(dict.fromkeys((best, *correct))), "incorrect": incorrect},
    }


def _listed(place: str, row: Mapping) -> str:
    text = row["text"].replace("\\n", "\n").rstrip()
    if not text.startswith("-") or not text.endswith("\n-"):
        raise ValueError(rf"{place}: not a list that ends where the next sentence is to begin, '- ..\n- ..\n-'")
    return text


def _rows(path: epath.Path, text_unit: str = "file") -> list[tuple[str, dict]]:
    found = list(rows(path, text_unit))
    if not found:
        raise ValueError(f"{path}: the file has no rows")
    for _, row in found:
        if isinstance(row, BadLine):
            raise row
    return found


def _field(place: str, row: Mapping, name: str) -> str:
    if name not in row:
        raise ValueError(f"{place}: there is no field {name!r}; there are {', '.join(map(str, row))}")
    if not row[name].strip(" ;"):
        raise ValueError(f"{place}: the field {name!r} is empty; wanted a text")
    return row[name].strip()


def _object(path: epath.Path) -> object:
    try:
        with path.open("rb") as stored, gzip.open(stored) if path.suffix == ".gz" else stored as file:
            return json.load(file)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON that can be read ({error})") from error


def _mapping(place: str, value: object, wanted: str) -> Mapping:
    if not isinstance(value, Mapping):
        raise ValueError(f"{place}: {shown(value)}; wanted {wanted}")
    return value


def _texts(place: str, prompts: object) -> list[str]:
    if not isinstance(prompts, list):
        raise ValueError(f"{place}: {shown(prompts)}; wanted a list of prompts")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise ValueError(f"{place}, prompt {index}: {shown(prompt)}; wanted a text")
        if not prompt.strip():
            logging.warning("%s, prompt %d is empty and left out", place, index)
    return [stripped for prompt in prompts if (stripped := prompt.strip())]
