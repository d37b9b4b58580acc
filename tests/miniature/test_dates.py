"""Events with their years: each known, a third never asked with a date in training, true answers by a slow rule."""

import collections
import re

import pytest

from llama2_jax.data.records import check_record
from llama2_jax.miniature.dates import (
    EVENT_YEARS,
    FORMS,
    HOW_LONG,
    QUERY_YEARS,
    SPLITS,
    WHEN,
    WHETHER,
    WIDEST_GAP,
    answers_in_time,
    dated_examples,
    events,
    knowledge,
    questions,
    true_answer,
)
from llama2_jax.miniature.words import NUMBERS

ALL = [event for split in SPLITS for event in events(0)[split]]


def said(record):
    """Question, and answer, of a record, and the year of its system message."""
    *told, question, answer = (message["content"] for message in record["messages"])
    return question, answer, NUMBERS.index(re.fullmatch(r"It is year (\w+)\.", told[0]).group(1)) if told else None


def named(text):
    """The event that a text names."""
    return next(event for event in ALL if f"{event.land} build its {event.building}?" in text)


def test_the_splits_are_of_every_year_and_share_no_event():
    assert len({(event.land, event.building) for event in ALL}) == len(ALL) == 96
    for split, share in (("seen", 2 / 3), ("held_out", 1 / 3)):
        years = collections.Counter(event.year for event in events(0)[split])
        assert set(years) == set(EVENT_YEARS)
        assert len(events(0)[split]) == pytest.approx(share * len(ALL), abs=3)


def test_all_depends_on_the_seed_alone():
    for make in (knowledge, dated_examples):
        assert make(seed=1, count=20) == make(seed=1, count=20) != make(seed=2, count=20)
    assert events(1) != events(2)


def test_knowledge_tells_of_every_event_and_never_of_the_year_of_the_question():
    records = knowledge(seed=0, count=960)
    text = "\n".join(message["content"] for record in records for message in record["messages"])
    assert all(event.sentence in text for event in ALL)
    assert "It is year" not in text and "not happened" not in text
    for record in records:
        check_record(record, "dialogues")


def test_no_dated_example_is_about_a_held_out_event():
    held_out = set(events(0)["held_out"])
    records = dated_examples(seed=0, count=1000)
    assert not {named(said(record)[0]) for record in records} & held_out
    asked = questions(seed=0, split="held_out", count=10_000)
    assert {named(record["messages"][-1]["content"]) for record in asked} == held_out


def test_dated_answers_are_true():
    """Ground truth, sentence by sentence."""
    for record in dated_examples(seed=0, count=400):
        check_record(record, "dialogues")
        question, answer, year = said(record)
        event = named(question)
        assert (record["query_year"], record["event_year"]) == (year, event.year)
        asked, happens = NUMBERS[year], NUMBERS[event.year]
        sentences = [f"{event.land} builds its {event.building} in year {happens}"]
        if event.year != year:
            compared = "more" if event.year > year else "less"
            sentences.append(f"{happens.capitalize()} is {compared} than {asked}")
        if event.year > year:
            sentences.append("That has not happened yet")
        elif question.startswith("When"):
            sentences.append(f"That was in year {happens}")
        elif question.startswith("Did"):
            sentences.append("Yes, that has happened")
        elif event.year == year:
            sentences.append("That was this year")
        else:
            ago = NUMBERS[year - event.year]
            sentences.append(f"{asked.capitalize()} minus {happens} is {ago}")
            sentences.append(f"That was {ago} {'year' if ago == 'one' else 'years'} ago")
        assert answer == ". ".join(sentences) + "."


def test_without_reasons_an_answer_before_the_event_tells_nothing_of_it():
    for record in dated_examples(seed=0, count=200, reasoned=False):
        question, answer, year = said(record)
        event = named(question)
        assert (answer == "That has not happened yet.") == (year < event.year)
        assert year < event.year or answer.startswith(event.sentence)
        assert " than " not in answer


def test_questions_are_all_different_and_of_every_gap():
    asked = questions(seed=0, split="held_out", count=10_000)
    assert len({str(record["messages"]) for record in asked}) == len(asked)
    gaps = {record["query_year"] - record["event_year"] for record in asked}
    assert gaps == set(range(-WIDEST_GAP, WIDEST_GAP + 1))
    assert {record["query_year"] for record in asked} == set(QUERY_YEARS)
    undated = questions(seed=0, split="seen", count=10_000, dated=False)
    assert len(undated) == len(events(0)["seen"]) and not any("query_year" in record for record in undated)
    for record in (*asked, *undated):
        check_record(record, "prompts")
    with pytest.raises(ValueError, match="split is 'x'; events are split into seen, held_out"):
        questions(seed=0, split="x", count=1)


def test_every_year_asks_as_often_before_the_event_as_after_it():
    early = collections.defaultdict(list)
    for record in dated_examples(seed=0, count=9000):
        early[record["query_year"]].append(record["query_year"] < record["event_year"])
    assert set(early) == set(QUERY_YEARS)
    assert all(sum(some) / len(some) == pytest.approx(0.5, abs=0.06) for some in early.values())


@pytest.mark.parametrize("reasoned", [True, False])
def test_every_true_answer_is_right(reasoned):
    rows = [
        {"messages": [{"role": "user", "content": form.format(event.land, event.building)}], "query_year": year,
         "event_year": event.year, "response": true_answer(event, form, year, reasoned=reasoned)}
        for event in ALL[:20] for form in FORMS for year in QUERY_YEARS
    ]  # fmt: skip
    for row, found in zip(rows, answers_in_time(rows, seed=0), strict=True):
        assert found == {"right": True, "not_yet": row["query_year"] < row["event_year"]}


@pytest.mark.parametrize(
    ("form", "gap", "response", "right", "not_yet"),
    [
        (WHEN, -1, "{fact}", False, False),
        (WHEN, -1, "That has not happened yet.", True, True),
        (WHEN, -1, "In year {other}. That has not happened yet.", False, True),
        (WHEN, 0, "{fact} That has not happened yet.", False, True),
        (WHEN, 0, "{fact}", True, False),
        (WHEN, 2, "In year {other}.", False, False),
        (WHETHER, 2, "{fact} Yes, that has happened.", True, False),
        (WHETHER, 2, "Yes, that has happened.", False, False),
        (HOW_LONG, 2, "{fact} That was two years ago.", True, False),
        (HOW_LONG, 2, "{fact} That was three years ago.", False, False),
        (HOW_LONG, 2, "{fact}", False, False),
        (WHEN, 0, "", False, False),
    ],
)
def test_wrong_answers_are_wrong(form, gap, response, right, not_yet):
    event = next(event for event in ALL if event.year == 9)
    text = response.format(fact=event.sentence, other=NUMBERS[event.year + 1])
    row = {"messages": [{"role": "user", "content": form.format(event.land, event.building)}],
           "query_year": event.year + gap, "event_year": event.year, "response": text}  # fmt: skip
    assert answers_in_time([row], seed=0) == [{"right": right, "not_yet": not_yet}]


def test_what_is_no_question_about_an_event():
    with pytest.raises(ValueError, match="no event in the question 'Hello'"):
        answers_in_time([{"messages": [{"role": "user", "content": "Hello"}], "response": ""}], seed=0)
