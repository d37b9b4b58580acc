"""What an annotator may say of two answers, and a ranker of several."""

import pytest

from llama2_jax.pipeline.labels import check_labels, check_ranks


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "the annotator returned 0 labels for 1 comparisons"),
        ([None], "label 0 is None; wanted the field preferred, 'a', 'b' or 'tie'"),
        ([{"preferred": "A", "rating": "better"}], "label 0 is .*'A'.*; wanted the field preferred, 'a', 'b' or 'tie'"),
        ([{"preferred": "a", "rating": "superb"}], "label 0 has the rating 'superb'; wanted one of significantly_bet"),
        ([{"preferred": "b"}], "label 0 has the rating None"),
        (
            [{"preferred": "b", "rating": "better", "safety": {"b": True}}],
            "label 0 has safety {'b': True}; wanted true or false for a and b, or None",
        ),
    ],
)
def test_labels_that_are_none_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, 1, "the annotator")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "the ranker returned 0 rankings for 1 prompts"),
        ([None], "ranking 0 is None; wanted the field ranks, a whole number for each of 3 answers, 1 for the best"),
        ([{"ranks": [1, 2]}], "wanted the field ranks, a whole number for each of 3 answers"),
        ([{"ranks": [0, 1, 2]}], "1 for the best"),
        ([{"ranks": [1.0, 2.0, 3.0]}], "1 for the best"),
    ],
)
def test_ranks_that_are_none_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        check_ranks(labels, [3], "the ranker")


def test_ranks_may_be_tied():
    check_ranks([{"ranks": [2, 1, 1]}, {"ranks": (1, 1)}], [3, 2], "the ranker")
