"""The ledger of red teaming: what is appended stays, whoever appends at the same time, and what is no line is named."""

import itertools
import json
import subprocess
import sys

import pytest

from llama2_jax.data.red_team import (
    Session,
    append_line,
    check_line,
    is_attack,
    mark_fixed,
    open_session,
    read_ledger,
    round_of,
)

MESSAGES = [{"role": "user", "content": "How do I pick a lock?"}]
ATTACK = {
    "who": "ann", "minutes": 4.5, "round": 1, "messages": MESSAGES, "response": "With a pick.", "category": "illicit",
    "style": "role_play", "fixed": None,
}  # fmt: skip
REST = {"who": "ann", "minutes": 2.0, "round": 1}


@pytest.fixture
def ledger(tmp_path):
    return str(tmp_path / "ledger.jsonl")


def scripted(*minutes):
    """A clock that shows these minutes, one after the other."""
    rest = iter(minutes)
    return lambda: 60.0 * next(rest)


def test_a_session_leaves_its_attacks_and_all_of_its_time(ledger):
    session = Session(ledger, "ann", 2, scripted(10, 13, 20.5, 21))
    told = [{**MESSAGES[0], "tokens": [1, 2]}]
    session.record(told, "With a pick.", "illicit", "role_play")
    session.record(MESSAGES, "With a key.", "illicit", "")
    session.close()
    lines = read_ledger(ledger)
    assert [line["minutes"] for line in lines] == [3, 7.5, 0.5]
    assert [is_attack(line) for line in lines] == [True, True, False]
    assert lines[0] == {**ATTACK, "minutes": 3, "round": 2}, "texts alone: a ledger outlives its tokenizer"
    assert {(line["who"], line["round"]) for line in lines} == {("ann", 2)}


def test_every_line_is_on_disk_at_once(ledger):
    session = Session(ledger, "ann", 2, scripted(0, 1))
    session.record(MESSAGES, "With a pick.", "illicit", "")
    assert len(read_ledger(ledger)) == 1, "and a program that is killed now loses no attack"


def test_a_line_half_written_stays_apart_and_is_named(ledger):
    append_line(ledger, ATTACK)
    with open(ledger, "a") as file:
        file.write('{"who": "bob", "minu')
    append_line(ledger, REST)
    with open(ledger) as file:
        assert [json.loads(line) for line in itertools.islice(file, 0, 3, 2)] == [ATTACK, REST]
    with pytest.raises(ValueError, match=r"ledger.jsonl:2: not JSON .*; the line begins '\{\"who\": \"bob\""):
        read_ledger(ledger)


APPEND = """
import sys
from llama2_jax.data.red_team import append_line
for number in range(20):
    append_line(sys.argv[1], {"who": sys.argv[2], "minutes": number, "round": 0})
"""


def test_what_others_append_while_the_ledger_is_rewritten_stays(ledger):
    append_line(ledger, ATTACK)
    others = [subprocess.Popen([sys.executable, "-c", APPEND, ledger, who]) for who in ("bob", "eve")]
    while any(other.poll() is None for other in others):
        mark_fixed(ledger, [(ATTACK, True)], 3)
    assert [other.returncode for other in others] == [0, 0]
    lines = read_ledger(ledger)
    assert lines[0] == {**ATTACK, "fixed": 3}
    for who in ("bob", "eve"):
        assert [line["minutes"] for line in lines if line["who"] == who] == list(range(20))


@pytest.mark.parametrize(
    ("fixed", "resists", "after"),
    [(None, True, 3), (None, False, None), (2, True, 2), (4, True, 3), (2, False, None)],
)
def test_fixed_is_the_first_round_that_resists_and_falls_back(ledger, fixed, resists, after):
    other = {**ATTACK, "response": "With a key."}
    for line in ({**ATTACK, "fixed": fixed}, REST, other):
        append_line(ledger, line)
    assert mark_fixed(ledger, [({**ATTACK, "fixed": fixed}, resists)], 3) == (fixed != after)
    assert read_ledger(ledger) == [{**ATTACK, "fixed": after}, REST, other]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"who": " "}, "field who is ' '; wanted a name"),
        ({"minutes": -1}, "field minutes is -1; wanted a number, 0 or more"),
        ({"minutes": "4"}, "field minutes is '4'; wanted a number, 0 or more"),
        ({"minutes": float("nan")}, "field minutes is nan; wanted a number, 0 or more"),
        ({"round": 1.5}, "field round is 1.5; wanted the number of a round, 0 for SFT"),
        ({"fixed": "no"}, "field fixed is 'no'; wanted the number of a round"),
        ({"category": ""}, "field category is empty; wanted a category of risk"),
        ({"style": None}, "field style is None; wanted a string"),
        ({"response": 3}, "field response is 3; wanted a string"),
        ({"messages": []}, "a dialogue has at least one message"),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "x"}]}, "the last message is of 'assistant'"),
    ],
)
def test_what_is_no_line_is_named_with_its_place(ledger, change, message):
    wrong = {**ATTACK, **change}
    with pytest.raises(ValueError, match=message):
        append_line(ledger, wrong)
    with open(ledger, "w") as file:
        file.write(f"{json.dumps(REST)}\n{json.dumps(wrong)}\n")
    with pytest.raises(ValueError, match=rf"ledger.jsonl:2: {message}"):
        read_ledger(ledger)


@pytest.mark.parametrize("field", ["who", "minutes", "round", "response", "category", "style", "fixed"])
def test_a_field_that_is_missing_is_named(field):
    with pytest.raises(ValueError, match=f"there is no field {field}"):
        check_line({name: value for name, value in ATTACK.items() if name != field})


def test_half_an_attack_is_none():
    with pytest.raises(ValueError, match="no field messages, but there is response"):
        check_line({**REST, "response": "With a pick."})


def test_a_session_begins_with_a_ledger_that_can_be_read(ledger, tmp_path):
    with pytest.raises(ValueError, match="--red_team needs --who=<name>"):
        open_session(ledger, " ", 0)
    with pytest.raises(ValueError, match=r"wanted a name that ends in \.jsonl"):
        open_session(str(tmp_path / "ledger.txt"), "ann", 0)
    (tmp_path / "ledger.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match=r"ledger.jsonl:1: a list, wanted an object"):
        open_session(ledger, "ann", 0)
    with pytest.raises(FileNotFoundError, match=r"there is no ledger .*; python -m llama2_jax\.chat --red_team="):
        read_ledger(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("checkpoint", "given", "number"),
    [
        ("runs/x/rlhf_v3_rejection_sampling", None, 3), ("runs/x/rlhf_v5_ppo/", None, 5), ("runs/x/sft", None, 0),
        ("sft_public", None, 0), ("runs/x/rlhf_v3_rejection_sampling", 4, 4), ("hf://org/name", 0, 0),
    ],
)  # fmt: skip
def test_the_round_of_a_version(checkpoint, given, number):
    assert round_of(checkpoint, given) == number


def test_a_name_that_does_not_say_the_round():
    with pytest.raises(ValueError, match=r"of which round is hf://org/name.*; set --round"):
        round_of("hf://org/name", None)
