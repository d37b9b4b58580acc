"""The documents of benchmarks that lie as local files, in the fields that their tasks ask for.

Errors name the file, the row and the field. A choice is a number: which of `choices` is right, from 0.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from llama2_jax.data.bad_line import BadLine
from llama2_jax.data.files import rows

Documents = list[dict[str, Any]]

_ANSWERS = re.compile(r"\s*Answer\d+: ")
_OPTIONS_OF_TWO = re.compile(r"\s*Option\d+: ")
_OPTIONS = re.compile(r"\s*\([A-Z]\) ")


def piqa(root: str) -> Documents:
    """PIQA's validation set, whose labels are in a file of their own."""
    labels = file_at(root, "piqa/valid-labels.lst").read_text().split()
    documents = read_rows(root, "piqa/valid.jsonl", _piqa)
    if len(labels) != len(documents):
        raise ValueError(f"{root}/piqa: {len(documents)} rows in valid.jsonl and {len(labels)} in valid-labels.lst")
    return [{**document, "label": int(label)} for document, label in zip(documents, labels, strict=True)]


def boolq(root: str) -> Documents:
    """BoolQ's development set."""
    return read_rows(
        root, "boolq/dev.jsonl.gz",
        lambda row: {"passage": row["passage"], "question": row["question"], "label": int(bool(row["answer"]))},
    )  # fmt: skip


def hellaswag(root: str) -> Documents:
    """1,000 questions of HellaSwag, from LLM-Eval's copy: {"test": [{"question", "choices": {"A": ..}, "answer"}]}."""
    path = file_at(root, "hellaswag_subset/hellaswag.json.gz")
    return [checked(f"{path}: test[{index}]", row, _lettered) for index, row in enumerate(read_json(path, "test"))]


def arc_easy(root: str) -> Documents:
    """ARC's easy test questions."""
    return read_rows(root, "llm_adapters/ARC-Easy_test.json.gz", _instruction)


def arc_challenge(root: str) -> Documents:
    """ARC's hard test questions."""
    return read_rows(root, "llm_adapters/ARC-Challenge_test.json.gz", _instruction)


def social_iqa(root: str) -> Documents:
    """Social IQa's test questions, each with its context before it."""
    return read_rows(root, "llm_adapters/social_i_qa_test.json.gz", _instruction)


def winogrande(root: str) -> Documents:
    """WinoGrande: of each sentence what stands before the blank, with either name in it, and what stands behind it."""
    return read_rows(root, "llm_adapters/winogrande_test.json.gz", _blank)


def openbookqa(root: str) -> Documents:
    """OpenBookQA's test set, a table with tabs."""
    path = file_at(root, "openbookqa/test.tsv")
    table = csv.DictReader(io.StringIO(path.read_text(), newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [checked(f"{path}: row {number}", row, _openbookqa) for number, row in enumerate(table, 2)]


def mmlu(root: str, subject: str, split: str) -> Documents:
    """A subject of MMLU: rows of a question, four choices and a letter, without a header."""
    path = file_at(root, f"mmlu/{split}/{subject}_{split}.csv")
    table = csv.reader(io.StringIO(path.read_text(), newline=""))
    return [checked(f"{path}: row {number}", row, _mmlu) for number, row in enumerate(table, 1) if row]


def mmlu_subjects(root: str) -> list[str]:
    """The subjects of MMLU that have a test file."""
    return sorted(path.stem.removesuffix("_test") for path in file_at(root, "mmlu/test").iterdir())


def gsm8k(root: str, split: str) -> Documents:
    """GSM8K's training or test set."""
    return read_rows(root, f"gsm8k/{split}.jsonl.gz", lambda row: {key: row[key] for key in ("question", "answer")})


def nq_open(root: str) -> Documents:
    """The development set of Natural Questions, open."""
    return read_rows(root, "nq_open/NQ-open.dev.jsonl", lambda row: {key: row[key] for key in ("question", "answer")})


def triviaqa(root: str) -> Documents:
    """A part of TriviaQA; a question's answers stand between semicolons."""
    return read_rows(
        root, "triviaqa_subset/TriviaQA.csv.gz",
        lambda row: {
            "question": row["question"],
            "answer": [answer for part in row["answer"].split(";") if (answer := part.strip())],
        },
    )  # fmt: skip


def svamp(root: str) -> Documents:
    """SVAMP: sums in words."""
    return read_rows(
        root, "svamp/SVAMP.json.gz",
        lambda row: {"question": f"{row['Body'].rstrip()} {row['Question'].strip()}", "answer": f"{row['Answer']:g}"},
    )  # fmt: skip


def file_at(root: str, name: str) -> epath.Path:
    """Returns a benchmark's file; ValueError if it is not there."""
    path = epath.Path(root) / name
    if not path.exists():
        raise ValueError(f"{path}: no such file; wanted the benchmark's documents there")
    return path


def read_rows(root: str, name: str, convert: Callable[[Mapping], dict]) -> Documents:
    """Returns a document of each row of a file; ValueError, with the row's place, if one cannot be used."""
    found = []
    for place, row in rows(file_at(root, name)):
        if isinstance(row, BadLine):
            raise row
        found.append(checked(place, row, convert))
    if not found:
        raise ValueError(f"{root}/{name}: no row")
    return found


def read_json(path: epath.Path, field: str) -> list:
    """Returns the list that a field of a JSON file has; ValueError, with the file's name, if there is none."""
    try:
        with gzip.open(path.open("rb")) if path.suffix == ".gz" else path.open("rb") as file:
            found = json.load(file)[field]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error!r}; wanted JSON with a list {field!r}") from error
    if not isinstance(found, list) or not found:
        raise ValueError(f"{path}: {field!r} is {found!r:.60}; wanted a list with a row at least")
    return found


def checked(place: str, row: Any, convert: Callable[[Any], dict]) -> dict:
    """Returns convert(row); ValueError, with the row's place, if it cannot be converted."""
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
    return {"question": question, "choices": choices, "label": place_of(label, choices)}


def _blank(row: Mapping) -> dict:
    """Of LLM-Adapters: "... given sentence: <sentence with _>\n\nOption1: .. Option2: .. Answer format: .."."""
    asked, given = row["instruction"].split("\n\n")[:2]
    before, after = asked.split("sentence: ", 1)[1].split("_", 1)
    options = _OPTIONS_OF_TWO.split(given.split(" Answer format:")[0])[1:]
    label = int(row["answer"].removeprefix("option")) - 1
    return {
        "choices": [before + option.strip() for option in options],
        "rest": after.strip(),
        "label": place_of(label, options),
    }


def _openbookqa(row: Mapping) -> dict:
    choices = _OPTIONS.split(row["Choices"])[1:]
    return {
        "question": row["Question Stem"],
        "choices": choices,
        "label": place_of("ABCDEFGH".index(row["Answer Key"].strip()), choices),
    }


def _mmlu(row: Sequence[str]) -> dict:
    question, *choices, letter = row
    if len(choices) != 4:
        raise ValueError(f"{len(row)} columns; wanted a question, four choices and a letter")
    return {"question": question.strip(), "choices": choices, "label": place_of("ABCD".index(letter), choices)}


def place_of(label: int, choices: Sequence[str]) -> int:
    """Returns the label; ValueError if there is no such choice."""
    if not 0 <= label < len(choices):
        raise ValueError(f"choice {label + 1} is right of {len(choices)}")
    return label
