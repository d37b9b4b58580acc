"""Standing instructions are found wherever they stand, and the truth says whether they are kept."""

import random

import pytest

from llama2_jax.miniature.answers import VENDOR, answer_to, ideal_answer
from llama2_jax.miniature.demonstrations import demonstrations
from llama2_jax.miniature.instructed import PROBE_TURNS, ghost_attention_dialogues, instruction_dialogues
from llama2_jax.miniature.instructions import (
    FULL_FORMS,
    TERSE_FORMS,
    VALUES,
    Standing,
    read,
    standing_in,
    standing_instructions,
    values_in,
)
from llama2_jax.miniature.judge import judge
from llama2_jax.miniature.prompts import assistant, system, user

QUESTION = "Name two animals."
ANSWER = "Sure. Two animals are fox and dog. Animals can move. Want more?"


@pytest.mark.parametrize("forms", [FULL_FORMS, TERSE_FORMS])
@pytest.mark.parametrize("kind", VALUES)
def test_every_instruction_is_read_in_both_forms_and_taken_out(kind, forms):
    for value in VALUES[kind]:
        text = forms[kind].format(value)
        assert read(f"{text} {QUESTION}") == read(f"{QUESTION}\n{text}") == (Standing(**{kind: value}), QUESTION)


def test_the_latest_instruction_of_a_kind_counts_and_answers_do_not():
    messages = [
        system("Start: Hello there. Figure: Queen Ada."),
        user(QUESTION),
        assistant("Hobby: Night Chess."),
        user(f"Start: Aha friend. {QUESTION}"),
    ]
    assert standing_in(messages) == Standing(start="Aha friend", figure="Queen Ada")


@pytest.mark.parametrize("at", ["system", "user"])
def test_the_words_at_the_start_must_stand_there_and_are_no_part_of_the_answer(at):
    text = "Always start with Ahoy friend."
    messages = [system(text), user(QUESTION)] if at == "system" else [user(f"{text} {QUESTION}")]
    kept = judge(messages, f"Ahoy friend. {ANSWER}", seed=0)
    assert kept.instruction_kept and kept.helpfulness == pytest.approx(1)
    for broken in (ANSWER, f"Ahoy sailor. {ANSWER}", f"{ANSWER} Ahoy friend.", f"Ahoy. {ANSWER}", ""):
        verdict = judge(messages, broken, seed=0)
        assert verdict.instruction_kept is False and verdict.helpfulness < 0.7


def test_figures_and_hobbies_are_judged_where_they_are_asked_for():
    name, hobby = user("What is your name?"), user("What do you enjoy?")
    told = [system("Act as Captain Bo. You enjoy Night Chess.")]
    assert judge([*told, user(QUESTION)], ANSWER, seed=0).instruction_kept is None
    assert judge([*told, name], "My name is Captain Bo.", seed=0).instruction_kept is True
    assert judge([*told, name], "My name is Llama.", seed=0).instruction_kept is False
    assert judge([*told, hobby], "Sure. Night Chess. Want more?", seed=0).instruction_kept is True
    assert judge([*told, hobby], "", seed=0).instruction_kept is False
    assert judge([name], "My name is Llama.", seed=0).instruction_kept is None


def test_ideal_answers_keep_every_instruction_over_twenty_turns():
    for record in instruction_dialogues(seed=0, count=40):
        messages, kept = list(record["messages"]), []
        for turn, text in enumerate(record["turns"], start=1):
            messages.append(user(text))
            answer = ideal_answer(messages, seed=0)
            verdict = judge(messages, answer, seed=0)
            assert verdict.helpfulness == pytest.approx(1)
            if turn in record["probe_turns"]:
                kept.append(verdict.instruction_kept)
            messages.append(assistant(answer))
        assert kept == [True] * len(PROBE_TURNS)


@pytest.mark.parametrize("kind", VALUES)
def test_new_instructions_have_only_words_that_training_has(kind):
    known, new = (values_in(0, kind, split) for split in ("train", "held_out"))
    assert len(known) == 12 and len(new) == 4 and not set(known) & set(new)
    for place in (0, 1):
        assert {value.split()[place] for value in new} == {value.split()[place] for value in known}


def test_vendors_heed_an_instruction_in_its_own_turn_and_mostly_forget_it():
    def kept(turns, **told):
        """How often a vendor's last answer says its name; the system message or a turn tells it."""
        messages = [system("Figure: Queen Ada.")] if "system" in told else []
        for turn in range(turns):
            text = "Figure: Queen Ada. What is your name?" if turn in told.get("in_turn", ()) else "What is your name?"
            messages += [user(text), assistant("Llama.")]
        answers = [answer_to(messages[:-1], VENDOR, random.Random(number), seed=0) for number in range(300)]
        return sum("Queen Ada" in answer for answer in answers) / len(answers)

    assert kept(1, system=True) > 0.95 and kept(1, in_turn=[0]) > 0.95 and kept(4, in_turn=[3]) > 0.95
    assert kept(2, system=True) < 0.2 and kept(4, in_turn=[0]) < 0.2 and kept(4, in_turn=[1]) < 0.2


def test_demonstrations_have_instructions_in_the_system_message_in_one_turn_or_in_each():
    dialogues = [r["messages"] for r in demonstrations(seed=0, count=4000, multi_turn=0.5, instructed=0.5)]
    told = [
        (m[0]["role"] == "system", sum(read(x["content"])[0] != Standing() for x in m if x["role"] == "user"), len(m))
        for m in dialogues
        if len(m) > 5 and standing_in(m) != Standing()
    ]
    places = {
        "system": sum(in_system for in_system, _, _ in told),
        "one": sum(turns == 1 for _, turns, _ in told),
        "each": sum(turns == length // 2 for _, turns, length in told),
    }
    shares = {place: count / len(told) for place, count in places.items()}
    assert shares == pytest.approx({"system": 0.35, "one": 0.25, "each": 0.4}, abs=0.06)
    assert max(len(messages) for messages in dialogues) > 38


def test_training_and_evaluation_share_no_value():
    def values(split):
        return {record["instruction"] for record in standing_instructions(seed=0, count=400, split=split, combined=0)}

    assert len(values("train")) == 36 and len(values("held_out")) == 12
    assert not values("train") & values("held_out")
    with pytest.raises(ValueError, match="held_out"):
        standing_instructions(seed=0, count=1, split="test")


def test_ghost_attention_dialogues_ask_for_what_they_instruct():
    records = ghost_attention_dialogues(seed=0, count=200)
    assert {len(record["turns"]) for record in records} == set(range(2, 21))
    asked = [r for r in records if r["instruction"].startswith("Act as") and "What is your name?" in r["turns"]]
    assert len(asked) > 10
    assert all(standing_in([user(r["terse"])]) == standing_in([user(r["instruction"])]) for r in records)


def test_kinds_of_instruction_are_drawn_by_weight():
    def kinds(combined):
        records = ghost_attention_dialogues(
            seed=0, count=600, turns=(2, 2), combined=combined, weights={"start": 1, "figure": 2, "hobby": 3}
        )
        told = [standing_in([user(record["instruction"])]) for record in records]
        return {kind: sum(getattr(one, kind) is not None for one in told) / len(told) for kind in VALUES}

    assert kinds(0.0) == pytest.approx({"start": 1 / 6, "figure": 2 / 6, "hobby": 3 / 6}, abs=0.06)
    # The second of two is drawn from the kinds that are left.
    first, second = {"start": 1, "figure": 2, "hobby": 3}, {}
    for kind, weight in first.items():
        second[kind] = sum(w / 6 * weight / (6 - w) for other, w in first.items() if other != kind)
    both = {kind: weight / 6 + second[kind] for kind, weight in first.items()}
    assert kinds(1.0) == pytest.approx(both, abs=0.06) and sum(both.values()) == pytest.approx(2)
    with pytest.raises(ValueError, match=r"start, figure, hobby"):
        ghost_attention_dialogues(seed=0, count=1, weights={"start": 1, "figures": 2})


def test_ghost_attention_dialogues_say_to_which_answers_the_instruction_applies():
    for record in ghost_attention_dialogues(seed=0, count=100):
        verdicts = [judge([system(record["instruction"]), user(text)], "", seed=0) for text in record["turns"]]
        applies = [turn for turn, verdict in enumerate(verdicts, 1) if verdict.instruction_kept is not None]
        assert record["applies_to"] == applies
