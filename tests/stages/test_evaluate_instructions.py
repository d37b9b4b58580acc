"""Instructions of a system message in the evaluation: kept by turn, known and new ones, and the attention to them."""

import pytest

from llama2_jax.pipeline.stage_files import read_json
from tests.three_versions import ATTENTION, dialogues, evaluation, judge


@pytest.fixture
def stage(tmp_path, monkeypatch):
    return evaluation(tmp_path, monkeypatch)


def test_instructions_are_measured_by_turn(stage):
    # Of three dialogues two have four turns, and none has six.
    for version in stage()[0]:
        assert version["instruction_kept"] == {"2": 1.0, "4": 0.0, "6": None}
        assert version["instruction_answers"] == {"2": 3, "4": 2, "6": 0}
        # No dialogue says whether training uses its instruction.
        assert version["new_instruction_kept"] == {"2": None, "4": None, "6": None}
        assert version["new_instruction_answers"] == {"2": 0, "4": 0, "6": 0}


@pytest.mark.parametrize("seen", [True, False])
def test_dialogues_of_one_kind_are_measured_together(stage, monkeypatch, seen):
    marked = [{**record, "seen": seen} for record in dialogues(seed=0)]
    monkeypatch.setitem(globals(), "dialogues", lambda *, seed: marked)
    for version in stage()[0]:
        assert version["instruction_kept"] == {"2": 1.0, "4": 0.0, "6": None}
        assert set(version["new_instruction_kept"].values()) == {None}


def known_and_new_dialogues(*, seed):
    """Two with instructions that training uses, of four and two turns, and three others, of six, six and four turns."""
    del seed
    lengths = {"known": (4, 2), "new": (6, 6, 4)}
    return [
        {"turns": ["a"] * count, "messages": [{"role": "system", "content": kind}], "seen": kind == "known"}
        for kind, counts in lengths.items()
        for count in counts
    ]


def judge_who_prefers_known_instructions(rows, *, seed):
    """A known instruction is kept in every turn, a new one in the second turn and by a long answer in the sixth."""
    verdicts = judge(rows, seed=seed)
    for row, verdict in zip(rows, verdicts, strict=True):
        turn = sum(message["role"] == "user" for message in row["messages"])
        kept = turn == 2 or (turn == 6 and len(row["response"]) > 3)
        verdict["instruction_kept"] = row["messages"][0]["content"] == "known" or kept
    return verdicts


def test_known_and_new_instructions_are_measured_apart(stage):
    versions, folder = stage(
        instruction_dialogues={"made": {"function": f"{__name__}.known_and_new_dialogues", "format": "raw"}},
        judge={"function": f"{__name__}.judge_who_prefers_known_instructions"},
    )
    for version, at_six in zip(versions, (0.0, 1.0, 0.0), strict=True):
        assert version["instruction_kept"] == {"2": 1.0, "4": 1.0, "6": None}
        assert version["instruction_answers"] == {"2": 2, "4": 1, "6": 0}
        assert version["new_instruction_kept"] == {"2": 1.0, "4": 0.0, "6": at_six}
        assert version["new_instruction_answers"] == {"2": 3, "4": 3, "6": 2}
    written = read_json(folder / "evaluation.json")
    assert (written["dialogues"], written["seen_dialogues"]) == (5, 2)


def test_attention_to_the_instruction_is_measured_by_turn(stage):
    assert [version["instruction_attention"] for version in stage()[0]] == [
        {"2": value, "4": value, "6": None} for value in ATTENTION.values()
    ]


def test_without_dialogues_nothing_is_said_of_instructions(stage):
    for version in stage(instruction_dialogues={})[0]:
        for name in ("instruction_kept", "new_instruction_kept", "instruction_attention"):
            assert version[name] == {"2": None, "4": None, "6": None}
