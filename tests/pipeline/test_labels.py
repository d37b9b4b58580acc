"""What an annotator may say of two answers."""

import pytest

from llama2_jax.pipeline.labels import check_labels


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
