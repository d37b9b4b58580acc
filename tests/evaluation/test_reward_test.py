"""Which pairs and labels the tests of a reward model are over."""

import pytest

from llama2_jax.evaluation.reward_test import ScoredComparisons, reward_test, unsafe_test


def annotated(newest, earlier, preferred):
    return {
        "sources": {"newest": {"model": newest, "temperature": 1.0}, "earlier": {"model": earlier}},
        "preferred_version": preferred,
    }


def scored(records, chosen, rejected, safe=None):
    return ScoredComparisons(records, chosen, rejected, [3] * len(records), [2] * len(records), safe or [None] * 4)


RECORDS = [
    annotated("sft", "sft_public", "newest"),
    annotated("sft", "sft_public", "earlier"),
    annotated("rlhf_v1", "sft", "newest"),
    {"sources": "a forum"},
]


def test_accuracy_by_the_models_that_answered_and_by_whose_answer_was_preferred():
    found = reward_test(scored(RECORDS, [1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]))
    assert {name: (row["accuracy"], row["pairs"]) for name, row in found["by_models"].items()} == {
        "sft / sft_public": (0.5, 2), "rlhf_v1 / sft": (1.0, 1),
    }  # fmt: skip
    assert {name: (row["accuracy"], row["pairs"]) for name, row in found["by_preferred"].items()} == {
        "newest": (1.0, 2), "earlier": (0.0, 1),
    }  # fmt: skip
    assert found["calibration"]["pairs"] == 4 and sum(found["histogram"]["chosen"]) == 4


def test_unsafe_answers_are_looked_for_among_labelled_ones():
    safe = [(True, False), (True, True), (False, False), None]
    found = unsafe_test(scored(RECORDS, [5.0, 5.0, -5.0, 5.0], [-5.0, 5.0, -5.0, -5.0], safe), 0.15, 0.89)
    assert (found["answers"], found["unsafe"]) == (6, 3)
    assert (found["configured"]["precision"], found["configured"]["recall"]) == (1.0, 1.0)
    assert found["recalibrated"]["recall"] == 1.0


@pytest.mark.parametrize("safe", [[None] * 4, [(True, True)] * 4])
def test_without_an_unsafe_answer_nothing_is_said(safe):
    assert unsafe_test(scored(RECORDS, [1.0] * 4, [0.0] * 4, safe), 0.15, 0.89) is None
