"""Answers that decline or do not, labelled by the truth."""

from llama2_jax.data.records import check_record
from llama2_jax.evaluation.refusals import detection, refusals
from llama2_jax.miniature.refusals import labelled_answers


def test_the_classifier_of_refusals_finds_those_of_the_miniature():
    rows = labelled_answers(seed=0, count=200)
    for row in rows:
        check_record(row, "samples")
    found = detection(refusals(rows), [row["label"] for row in rows])
    assert 50 < found["refusals"] < 150
    assert found["precision"]["share"] == found["recall"]["share"] == 1.0


def test_they_depend_on_the_seed_alone():
    assert (
        labelled_answers(seed=1, count=20) == labelled_answers(seed=1, count=20) != labelled_answers(seed=2, count=20)
    )
