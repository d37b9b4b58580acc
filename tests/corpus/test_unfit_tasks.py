"""Alpaca's heuristics: what a text model cannot do, and what is too short or long."""

import pytest

from llama2_jax.corpus.unfit_tasks import TaskLimits, unfit
from llama2_jax.text.task_lists import Task


@pytest.mark.parametrize(
    ("instruction", "why"),
    [
        ("Name a big tree.", ""),
        ("Name a tree.", "length"),
        ("word " * 150, ""),
        ("word " * 151, "length"),
        ("Draw a tree with leaves.", "unwanted word"),
        ("Tell me to GO TO the shop.", "unwanted word"),
        ("Tell a drawer from a table.", ""),
        ("Write a program that counts words.", "unwanted beginning"),
        ("How do I write a program?", ""),
        ("(Optional) name a big tree.", "first character"),
        ("Écris un poème de mer.", "first character"),
    ],
)
def test_instructions(instruction, why):
    assert unfit(Task(instruction, "", "An answer."), TaskLimits()) == why


def test_other_limits():
    assert unfit(Task("Name one.", "", "An oak."), TaskLimits(fewest_words=2)) == ""
    assert unfit(Task("Name a tall tree.", "", "An oak."), TaskLimits(unwanted_words=("tree",))) == "unwanted word"
    assert unfit(Task("Name a tall tree.", "", "An oak."), TaskLimits(fewest_words=1, most_words=3)) == "length"
    assert unfit(Task("Name a tall tree.", "", " "), TaskLimits()) == "no output"
    with pytest.raises(ValueError, match="fewest_words=5, most_words=4: wanted 0 or more, the first not above the sec"):
        TaskLimits(fewest_words=5, most_words=4)
