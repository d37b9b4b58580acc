"""Instructions kept over turns, known and new ones apart."""

import pytest

from llama2_jax.evaluation.kept_instructions import kept_by_turn, known_and_new


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ((True, False, True), ([0, 2], [1])),
        ((True, None), ([0], [1])),
        ((True, True), ([0, 1], [])),
        ((False, False), ([0, 1], [])),
        ((None, None), ([0, 1], [])),
        ((False, None), ([0, 1], [])),
        ((), ([], [])),
    ],
)
def test_dialogues_are_told_apart_where_both_kinds_occur(seen, expected):
    """A record that does not say that it is seen counts as unseen, as prompts do."""
    assert known_and_new([{} if one is None else {"seen": one} for one in seen]) == expected


def test_shares_by_turn_are_over_what_the_judge_decided():
    verdicts = {
        1: {0: {"instruction_kept": True}, 1: {"instruction_kept": False}, 2: {"instruction_kept": True}},
        4: {0: {"instruction_kept": False}, 1: None, 2: {"instruction_kept": None}},
        20: {},
    }
    assert kept_by_turn(verdicts, [0, 1]) == ({"1": 0.5, "4": 0.0, "20": None}, {"1": 2, "4": 1, "20": 0})
    assert kept_by_turn(verdicts, [2]) == ({"1": 1.0, "4": None, "20": None}, {"1": 1, "4": 0, "20": 0})
    assert kept_by_turn(verdicts, [])[0] == dict.fromkeys(("1", "4", "20"))
