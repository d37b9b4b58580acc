"""The comparison of two backends counts what differs."""

from benchmarks.harness import difference


def test_texts_flags_and_numbers_are_compared_apart():
    ours = [[[-1.5, True], [-2.0, False]], [["a text"]]]
    other = [[[-1.25, True], [-2.0, True]], [["another"]]]
    assert difference(ours, ours) == (0, 0.0)
    assert difference(ours, other) == (2, 0.25)
