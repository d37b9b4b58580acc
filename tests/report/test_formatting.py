"""Numbers, shares and durations as the page shows them."""

import pytest

from llama2_jax.report import formatting


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (0.0, "0%"), (1.0, "100%"), (0.5, "50%"), (0.004, "0.4%"), (0.996, "99.6%"), (0.042, "4.2%")],
)
def test_percent(share, text):
    assert formatting.percent(share) == text


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (3, "3"), (12345, "12,345"), (2.0, "2"), (0.12345, "0.123")])
def test_number(value, text):
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (59.0, "59.0 s"), (61, "1 min 01 s"), (3599.7, "1 h 00 min"), (7260, "2 h 01 min")],
)
def test_duration(seconds, text):
    assert formatting.duration(seconds) == text
