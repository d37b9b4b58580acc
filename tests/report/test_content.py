"""Curves and numbers as report.json has them."""

from llama2_jax.report.content import finite, thinned


def test_long_curves_are_thinned_but_keep_their_ends():
    points = [[step, step] for step in range(5000)]
    kept = thinned(points, 400)
    assert len(kept) == 400 and kept[0] == [0, 0] and kept[-1] == [4999, 4999]
    assert kept == sorted(kept) and thinned(points[:400], 400) == points[:400]


def test_numbers_that_json_does_not_have_become_null():
    tree = {"a": [1.5, float("nan")], "b": {"c": float("inf"), "d": "nan"}, "e": (2, True, None)}
    assert finite(tree) == {"a": [1.5, None], "b": {"c": None, "d": "nan"}, "e": [2, True, None]}
