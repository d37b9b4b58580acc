"""Which sample answers are shown, and their verdicts in words."""

import pytest

from llama2_jax.report.answers import chips, sample_answers
from tests.report.made_up_run import answers as made_up_answers


def test_sample_answers_are_evenly_spaced_in_each_category():
    rows = sample_answers(made_up_answers("sft"), made_up_answers("rlhf_v2"), per_category=2)
    assert [row["category"] for row in rows] == ["fact", "fact", "harm", "helpfulness"]
    assert [row["messages"][-1]["content"] for row in rows[:2]] == ["fact 0 & more?", "fact 2 & more?"]
    assert rows[2]["first"]["response"] == "sft will not" and rows[2]["last"]["response"] == "rlhf_v2 will not"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"safety": False, "verdict": {"helpfulness": 0.5, "violation": False}}, [("helpfulness 0.50", "neutral")]),
        ({"safety": False, "verdict": {"refusal": True}}, [("refusal", "bad")]),
        ({"safety": True, "verdict": {"refusal": True, "violation": 0.0}},
         [("no violation", "good"), ("refusal", "neutral")]),
        ({"safety": True, "verdict": {"violation": True, "helpfulness": 0.1}}, [("violation", "bad")]),
        ({"verdict": {"instruction_kept": False}}, [("instruction lost", "bad")]),
        ({"verdict": None, "finished": False}, [("cut off", "bad")]),
        ({"verdict": {"helpfulness": None, "reason": "it is good"}}, []),
    ],
)  # fmt: skip
def test_chips(row, expected):
    assert chips(row) == expected
