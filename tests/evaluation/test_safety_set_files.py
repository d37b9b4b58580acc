"""The files of the safety benchmarks, in small: what is read, and what is said of what cannot be."""

import csv
import gzip
import io
import json
import re

import pytest
from etils import epath

from llama2_jax.evaluation import safety_set_files as files

QUESTION = {
    "Type": "Adversarial", "Category": "Animals", "Question": "What do cats see?", "Best Answer": "Some colours",
    "Correct Answers": "Cats see colours; Some colours; ", "Incorrect Answers": "Black and white; Nothing",
    "Source": "",
}  # fmt: skip


def written(path, text):
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return epath.Path(path)


def questions(path, *rows):
    """TruthfulQA.csv, which begins with a byte order mark."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return written(path, "\ufeff" + text.getvalue())


def test_questions_with_their_answers(tmp_path):
    path = questions(tmp_path / "TruthfulQA.csv", QUESTION, {**QUESTION, "Question": "And dogs?"})
    first, second = files.truthfulqa([path])
    assert first == {
        "domain": "", "group": "all", "category": "Animals", "question": "What do cats see?",
        "reference": {"correct": ["Some colours", "Cats see colours"], "incorrect": ["Black and white", "Nothing"]},
    }  # fmt: skip
    assert second["question"] == "And dogs?"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Question": " "}, r"TruthfulQA.csv:3: the field 'Question' is empty; wanted a text"),
        ({"Incorrect Answers": " ; "}, r"TruthfulQA.csv:3: the field 'Incorrect Answers' is empty; wanted a text"),
    ],
)
def test_a_question_without_a_field(tmp_path, change, message):
    path = questions(tmp_path / "TruthfulQA.csv", QUESTION, {**QUESTION, **change})
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + "/" + message):
        files.truthfulqa([path])


def test_a_table_without_a_column_or_without_rows(tmp_path):
    other = {("Answer" if name == "Best Answer" else name): value for name, value in QUESTION.items()}
    path = questions(tmp_path / "TruthfulQA.csv", other)
    with pytest.raises(ValueError, match=r"csv:2: there is no field 'Best Answer'; there are Type, Category, Question"):
        files.truthfulqa([path])
    with pytest.raises(ValueError, match=r"TruthfulQA.csv: the file has no rows"):
        files.truthfulqa([written(tmp_path / "TruthfulQA.csv", ",".join(QUESTION) + "\n")])
    with pytest.raises(ValueError, match=r"TruthfulQA.csv:2: 1 columns, the header has 7"):
        files.truthfulqa([written(tmp_path / "TruthfulQA.csv", ",".join(QUESTION) + "\nalone\n")])


def lists(folder, kind, group, *texts):
    return written(folder / f"{kind}_{group}_1k.txt.gz", "\n".join(texts) + "\n")


def test_lists_of_sentences_by_group(tmp_path):
    found = files.toxigen(
        [
            lists(tmp_path, "hate", "middle_east", r"- one\n- two\n-", r"- three\n-"),
            lists(tmp_path, "hate", "women", r"- left out\n-"),
            lists(tmp_path, "neutral", "middle_east", r"- four\n-"),
        ],
        ["middle_east"],
    )
    assert found == [
        {"domain": "", "group": "middle_east", "kind": "hate", "prompt": "- one\n- two\n-"},
        {"domain": "", "group": "middle_east", "kind": "hate", "prompt": "- three\n-"},
        {"domain": "", "group": "middle_east", "kind": "neutral", "prompt": "- four\n-"},
    ]


def test_lists_that_cannot_be_used(tmp_path):
    good = lists(tmp_path, "hate", "women", r"- one\n-")
    with pytest.raises(ValueError, match=r"no prompts about asian, black in hate_women_1k.txt.gz; wanted files named"):
        files.toxigen([good], ["women", "black", "asian"])
    with pytest.raises(ValueError, match=r"other.txt: wanted a name as hate_<group>_1k.txt"):
        files.toxigen([written(tmp_path / "other.txt", "- a\n")], ["women"])
    with pytest.raises(ValueError, match=r"hate_women_1k.txt.gz:2: not a list that ends where the next sentence"):
        files.toxigen([lists(tmp_path, "hate", "women", r"- one\n-", r"- one\n- two")], ["women"])
    with pytest.raises(ValueError, match=r"hate_women_1k.txt.gz: the file has no rows"):
        files.toxigen([lists(tmp_path, "hate", "women")], ["women"])


def domain(folder, name, content):
    return written(folder / f"{name}_prompt.json.gz", json.dumps(content))


def test_beginnings_by_domain_and_group(tmp_path):
    found = files.bold(
        [
            domain(
                tmp_path, "craft", {"bakers": {"Ann": ["Ann bakes ", "Ann was a "]}, "tailors": {"Bo": ["Bo sews"]}}
            ),
            domain(tmp_path, "sport", {"bakers": {"Cy": ["Cy runs"]}}),
        ]
    )
    assert [(row["domain"], row["group"], row["prompt"]) for row in found] == [
        ("craft", "bakers", "Ann bakes"), ("craft", "bakers", "Ann was a"), ("craft", "tailors", "Bo sews"),
        ("sport", "bakers", "Cy runs"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"craft_prompt.json.gz: \[\]; wanted {group: {subject: \[prompt, ..\]}}"),
        ({"bakers": ["Ann"]}, r"craft_prompt.json.gz: bakers: \['Ann'\]; wanted {subject: \[prompt, ..\]}"),
        ({"bakers": {"Ann": "Ann bakes"}}, r"gz: bakers, Ann: 'Ann bakes'; wanted a list of prompts"),
        ({"bakers": {"Ann": ["Ann bakes", 1]}}, r"gz: bakers, Ann, prompt 1: 1; wanted a text"),
        ({"bakers": {"Ann": [""]}}, r"craft_prompt.json.gz: no prompt; wanted {group"),
    ],
)
def test_beginnings_that_cannot_be_used(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        files.bold([domain(tmp_path, "craft", content)])


def test_empty_beginnings_are_left_out_with_their_place(tmp_path, caplog):
    (found,) = files.bold([domain(tmp_path, "craft", {"bakers": {"Ann": [" ", "Ann bakes"]}})])
    assert found["prompt"] == "Ann bakes"
    assert "craft_prompt.json.gz: bakers, Ann, prompt 0 is empty and left out" in caplog.text


def test_a_file_that_is_no_json_and_one_that_is_cut_off(tmp_path):
    with pytest.raises(ValueError, match=r"craft_prompt.json: not JSON that can be read"):
        files.bold([written(tmp_path / "craft_prompt.json", "{")])
    whole = domain(tmp_path, "craft", {"bakers": {"Ann": [f"Ann bakes {number}" for number in range(99)]}})
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"craft_prompt.json.gz: not JSON that can be read"):
        files.bold([whole])


def test_a_part_is_evenly_spaced_in_every_group():
    prompts = [{"domain": "d", "group": "ab"[index % 2], "index": index} for index in range(20)]
    assert [one["index"] for one in files.evenly(prompts, 3)] == [0, 1, 6, 7, 12, 13]
    assert files.evenly(prompts, 0) == files.evenly(prompts, 100) == prompts
    assert files.evenly([], 5) == []
