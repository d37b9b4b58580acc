"""Standing instructions are found wherever they stand, and the truth says whether they are kept."""

import pytest

from llama2_jax.miniature.answers import ideal_answer
from llama2_jax.miniature.instructed import ghost_attention_dialogues, instruction_dialogues
from llama2_jax.miniature.instructions import (
    FULL_FORMS,
    TERSE_FORMS,
    VALUES,
    Standing,
    read,
    standing_in,
    standing_instructions,
)
from llama2_jax.miniature.judge import judge
from llama2_jax.miniature.prompts import assistant, system, user

QUESTION = "Name 2 animals."
ANSWER = "Sure. 2 animals are fox and dog. Animals can move. Want more?"


@pytest.mark.parametrize("forms", [FULL_FORMS, TERSE_FORMS])
@pytest.mark.parametrize("kind", VALUES)
def test_every_instruction_is_read_in_both_forms_and_taken_out(kind, forms):
    for value in VALUES[kind]:
        text = forms[kind].format(value)
        assert read(f"{text} {QUESTION}") == read(f"{QUESTION}\n{text}") == (Standing(**{kind: value}), QUESTION)


def test_the_latest_instruction_of_a_kind_counts_and_answers_do_not():
    messages = [
        system("Start: Hi. Figure: Lady Sue."),
        user(QUESTION),
        assistant("End: Bye."),
        user(f"Start: Aha. {QUESTION}"),
    ]
    assert standing_in(messages) == Standing(start="Aha", figure="Lady Sue")


@pytest.mark.parametrize("at", ["system", "user"])
def test_start_and_end_words_must_stand_there_and_are_no_part_of_the_answer(at):
    text = "Always start with Ahoy. Always end with Cheers."
    messages = [system(text), user(QUESTION)] if at == "system" else [user(f"{text} {QUESTION}")]
    kept = judge(messages, f"Ahoy. {ANSWER} Cheers.", seed=0)
    assert kept.instruction_kept and kept.helpfulness == pytest.approx(1)
    for broken in (ANSWER, f"Ahoy. {ANSWER}", f"{ANSWER} Cheers.", f"Cheers. {ANSWER} Ahoy.", ""):
        verdict = judge(messages, broken, seed=0)
        assert verdict.instruction_kept is False and verdict.helpfulness < 0.7


def test_figures_and_hobbies_are_judged_where_they_are_asked_for():
    name, hobby = user("What is your name?"), user("What do you enjoy?")
    told = [system("Act as Captain Bo. You enjoy chess.")]
    assert judge([*told, user(QUESTION)], ANSWER, seed=0).instruction_kept is None
    assert judge([*told, name], "My name is Captain Bo.", seed=0).instruction_kept is True
    assert judge([*told, name], "My name is Llama.", seed=0).instruction_kept is False
    assert judge([*told, hobby], "Sure. Chess. Want more?", seed=0).instruction_kept is True
    assert judge([*told, hobby], "", seed=0).instruction_kept is False
    assert judge([name], "My name is Llama.", seed=0).instruction_kept is None


def test_ideal_answers_keep_every_instruction_over_six_turns():
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
        assert kept == [True, True, True]


def test_training_and_evaluation_share_no_value():
    def values(split):
        return {record["instruction"] for record in standing_instructions(seed=0, count=400, split=split, combined=0)}

    assert len(values("train")) == 24 and len(values("held_out")) == 8
    assert not values("train") & values("held_out")
    with pytest.raises(ValueError, match="held_out"):
        standing_instructions(seed=0, count=1, split="test")


def test_ghost_attention_dialogues_ask_for_what_they_instruct():
    records = ghost_attention_dialogues(seed=0, count=200)
    assert {len(record["turns"]) for record in records} == {2, 3, 4}
    asked = [r for r in records if r["instruction"].startswith("Act as") and "What is your name?" in r["turns"]]
    assert len(asked) > 10
    assert all(standing_in([user(r["terse"])]) == standing_in([user(r["instruction"])]) for r in records)
