"""Style beside a teacher's answers, and facts: each measure on answers that differ in it alone."""

import pytest

from llama2_jax.evaluation.imitation import MEASURES, judge

REFERENCE = "Sure thing! The lake of Doria is Mirel. Its trees are oak, elm, ash and fir."


def verdict(response, reference=REFERENCE, answer=("Mirel",), others=()):
    """Of the first of several rows; the others' references begin as the teacher usually does."""
    rows = [{"response": response, "reference": reference, "answer": list(answer) if answer else None}]
    rows += [{"response": "x", "reference": other} for other in others]
    return judge(rows)[0]


def test_the_teacher_s_own_answer_is_like_itself():
    found = verdict(REFERENCE, others=["Sure thing! Yes."])
    assert found == {
        "helpfulness": 1.0, "overlap": 1.0, "tone": True, "list": True, "as_long": True, "right": True,
    }  # fmt: skip


def test_overlap_is_f1_of_words():
    # Two words of two, and of three.
    assert verdict("A red fox", reference="the red fox runs")["overlap"] == pytest.approx(2 * 2 / (2 + 3))


def test_a_phrase_of_the_teacher_is_one_that_begins_several_answers():
    assert not verdict("Sure thing! Mirel.")["tone"], "once is no habit"
    assert verdict("Sure thing. Mirel.", others=["Sure thing! Yes."])["tone"]
    assert not verdict("Well, sure thing! Mirel.", others=["Sure thing! Yes."])["tone"]
    assert not verdict("", others=["Sure thing! Yes."])["tone"]


@pytest.mark.parametrize(
    ("response", "alike"),
    [
        ("They are oak, elm, and ash.", True),
        ("1. oak\n2. elm", True),
        ("- oak\n- elm", True),
        ("They are oak and elm.", False),
        ("Oak.", False),
    ],
)
def test_lists_where_the_teacher_has_them(response, alike):
    assert verdict(response)["list"] is alike
    assert verdict(response, reference="Oak.")["list"] is not alike


def test_lengths_within_a_half():
    reference = "one two three four"
    assert [verdict("word " * words, reference=reference)["as_long"] for words in (2, 3, 6, 7)] == [
        False, True, True, False,
    ]  # fmt: skip


def test_a_fact_is_named_as_a_word_of_its_own():
    assert verdict("It is mirel!")["right"] is True
    assert verdict("It is Mirella.")["right"] is False
    assert verdict("It is blue.", answer=("Red", "Blue"))["right"] is True
    assert verdict("It is blue.", answer=None)["right"] is None


def test_every_measure_has_a_field():
    fields = verdict("x").keys()
    assert all(measure.verdict in fields for measure in MEASURES if measure.verdict)
