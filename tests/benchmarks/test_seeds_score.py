"""The score of several seeds: its closed form, and its row in the leaderboard."""

import math

import pytest

from benchmarks.seeds_score import points, score


def report(helpfulness, safety, minutes=10.0):
    version = {"helpfulness": helpfulness, "safety": safety, "judged": {"helpfulness": 300, "safety": 100}}
    worse = {"helpfulness": 0.0, "safety": 0.0, "judged": {"helpfulness": 1, "safety": 1}}
    return {"versions": [worse, version], "seconds": {"pretrain": 40 * minutes, "sft": 20 * minutes}}


def test_every_prompt_counts_once():
    assert points(report(0.6, 1.0)["versions"][-1]) == pytest.approx(100 * (0.6 * 300 + 1.0 * 100) / 400)


def test_the_interval_is_students():
    reports = [report(value, value, minutes) for value, minutes in ((0.5, 30.0), (0.6, 10.0), (0.7, 12.0))]
    reached = score(reports)
    assert reached.mean == pytest.approx(60.0) and reached.minutes == pytest.approx(12.0) and reached.seeds == 3
    # 4.303 is the 97.5 % quantile of Student's t with two degrees of freedom; the deviation is 10.
    assert reached.half_width == pytest.approx(4.3027 * 10 / math.sqrt(3), rel=1e-4)
    assert reached.row("another margin") == "| another margin | 60.0 | 24.8 | 12.0 | 3 |"


def test_a_single_seed_has_no_interval():
    assert score([report(0.5, 0.5)]).half_width is None
    assert score([report(0.5, 0.5)]).row("one") == "| one | 50.0 | - | 10.0 | 1 |"
