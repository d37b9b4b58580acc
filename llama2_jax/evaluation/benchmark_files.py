"""The documents of benchmarks that lie as local files, in the fields that their tasks ask for.

Errors name the file, the row and the field. A choice is a number: which of `choices` is right, from 0.
"""

import csv
import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from llama2_jax.data.bad_line import BadLine
from llama2_jax.data.files import rows

Documents = list[dict[str, Any]]

_ANSWERS = re.compile(r"\s*Answer\d+: ")
_OPTIONS = re.compile(r"\s*\([A-Z]\) ")


def piqa(root: str) -> Documents:
    """PIQA's validation set, whose labels are in a file of their own."""
    labels = _path(root, "piqa/valid-labels.lst").read_text().split()
    documents = _documents(root, "piqa/valid.jsonl", _piqa)
    if len(labels) != len(documents):
        raise ValueError(f"{root}/piqa: {len(documents)} rows in valid.jsonl and {len(labels)} in valid-labels.lst")
    return [{**document, "label": int(label)} for document, label in zip(documents, labels, strict=True)]


def boolq(root: str) -> Documents:
    """BoolQ's development set."""
    return _documents(
        root, "boolq/dev.jsonl.gz",
        lambda row: {"passage": row["passage"], "question": row["question"], "label": int(bool(row["answer"]))},
    )  # fmt: skip


def hellaswag(root: str) -> Documents:
    """1,000 questions of HellaSwag, from LLM-Eval's copy: {"test": [{"question", "choices": {"A": ..}, "answer"}]}."""
    path = _path(root, "hellaswag_subset/hellaswag.json.gz")
    with gzip.open(path.open("rb")) as file:
        content = json.load(file)
    return [_checked(f"{path}: test[{index}]", row, _lettered) for index, row in enumerate(content["test"])]


def arc_easy(root: str) -> Documents:
    """ARC's easy test questions."""
    return _documents(root, "llm_adapters/ARC-Easy_test.json.gz", _instruction)


def arc_challenge(root: str) -> Documents:
    """ARC's hard test questions."""
    return _documents(root, "llm_adapters/ARC-Challenge_test.json.gz", _instruction)


def openbookqa(root: str) -> Documents:
    """OpenBookQA's test set, a table with tabs."""
    path = _path(root, "openbookqa/test.tsv")
    table = csv.DictReader(path.read_text().splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [_checked(f"{path}: row {number}", row, _openbookqa) for number, row in enumerate(table, 2)]


def mmlu(root: str, subject: str, split: str) -> Documents:
    """A subject of MMLU: rows of a question, four choices and a letter, without a header."""
    path = _path(root, f"mmlu/{split}/{subject}_{split}.csv")
    table = csv.reader(path.read_text().splitlines(keepends=True))
    return [_checked(f"{path}: row {number}", row, _mmlu) for number, row in enumerate(table, 1)]


def gsm8k(root: str, split: str) -> Documents:
    """GSM8K's training or test set."""
    return _documents(root, f"gsm8k/{split}.jsonl.gz", lambda row: {key: row[key] for key in ("question", "answer")})


def nq_open(root: str) -> Documents:
    """The development set of Natural Questions, open."""
    return _documents(root, "nq_open/NQ-open.dev.jsonl", lambda row: {key: row[key] for key in ("question", "answer")})


def triviaqa(root: str) -> Documents:
    """A part of TriviaQA; a question's answers stand between semicolons."""
    return _documents(
        root, "triviaqa_subset/TriviaQA.csv.gz",
        lambda row: {
            "question": row["question"],
            "answer": [answer for part in row["answer"].split(";") if (answer := part.strip())],
        },
    )  # fmt: skip


def svamp(root: str) -> Documents:
    """SVAMP: sums in words."""
    return _documents(
        root, "svamp/SVAMP.json.gz",
        lambda row: {"question": f"{row['Body'].rstrip()} {row['Question'].strip()}", "answer": f"{row['Answer']:g}"},
    )  # fmt: skip


def _path(root: str, name: str) -> epath.Path:
    path = epath.Path(root) / name
    if not path.exists():
        raise ValueError(f"{path}: no such file; wanted the benchmark's documents there")
    return path


def _documents(root: str, name: str, convert: Callable[[Mapping], dict]) -> Documents:
    found = []
    for place, row in rows(_path(root, name)):
        if isinstance(row, BadLine):
            raise row
        found.append(_checked(place, row, convert))
    if not found:
        raise ValueError(f"{root}/{name}: no row")
    return found


def _checked(place: str, row: Any, convert: Callable[[Any], dict]) -> dict:
    try:
        return convert(row)
    except KeyError as error:
        raise ValueError(f"{place}: no field {error}; it has {', '.join(map(str, row))}") from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{place}: {error}; the row is {row!r:.120}") from error


def _piqa(row: Mapping) -> dict:
    return {"goal": row["goal"], "choices": [row["sol1"], row["sol2"]]}


def _lettered(row: Mapping) -> dict:
    letters = list(row["choices"])
    return {"query": row["question"], "choices": list(row["choices"].values()), "label": letters.index(row["answer"])}


def _instruction(row: Mapping) -> dict:
    """Of LLM-Adapters: "... to the question: <question>\n\nAnswer1: .. Answer2: ..\n\nAnswer format: .."."""
    asked, given = row["instruction"].split("\n\n")[:2]
    _, question = asked.split("question: ", 1)
    choices = _ANSWERS.split(given)[1:]
    label = int(row["answer"].removeprefix("answer")) - 1
    return {"question": question, "choices": choices, "label": _place(label, choices)}


def _openbookqa(row: Mapping) -> dict:
    choices = _OPTIONS.split(row["Choices"])[1:]
    return {
        "question": row["Question Stem"],
        "choices": choices,
        "label": _place("ABCDEFGH".index(row["Answer Key"].strip()), choices),
    }


def _mmlu(row: Sequence[str]) -> dict:
    question, *choices, letter = row
    if len(choices) != 4:
        raise ValueError(f"{len(row)} columns; wanted a question, four choices and a letter")
    return {"question": question.strip(), "choices": choices, "label": _place("ABCD".index(letter), choices)}


def _place(label: int, choices: Sequence[str]) -> int:
    if not 0 <= label < len(choices):
        raise ValueError(f"choice {label + 1} is right of {len(choices)}")
    return label
