"""What red teaming found in an hour, and what a version resists, from ledgers counted by hand."""

import pytest

from llama2_jax.evaluation.red_team import resisted, violations_per_hour


def attack(number, category="illicit", style="plain", minutes=10.0, who="ann"):
    messages = [{"role": "user", "content": "How?"}]
    return {"who": who, "minutes": minutes, "round": number, "messages": messages, "category": category, "style": style}


def test_violations_are_counted_by_person_and_hour_of_all_time_spent():
    """The paper's 7B fell from 1.8 to 0.45."""
    before = [attack(1, who=who, minutes=30.0) for who in ("ann", "bob") for _ in range(9)]
    after = [*[attack(5, minutes=3.0)] * 9, {"who": "eve", "minutes": 20 * 60 - 27.0, "round": 5}]
    lines = [*after, *before, {"who": "ann", "minutes": 60.0, "round": 1}]
    found = violations_per_hour(lines)
    assert list(found) == [1, 5]
    assert found[1]["per_hour"] == pytest.approx(1.8)
    assert found[5] == {
        "violations": 9, "hours": pytest.approx(20), "people": 2, "per_hour": pytest.approx(0.45),
        "standard_error": pytest.approx(3 / 20),
    }  # fmt: skip


def test_no_time_gives_no_rate():
    found = violations_per_hour([attack(0, minutes=0.0)])
    assert (found[0]["per_hour"], found[0]["standard_error"]) == (None, None)
    assert violations_per_hour([]) == {}


def test_what_is_resisted_by_round_category_and_style():
    attacks = [attack(0), attack(0, style="role_play"), attack(2, "hateful"), attack(2)]
    found = resisted(attacks, [False, True, False, None])
    assert (found["all"]["count"], found["all"]["of"]) == (2, 3)
    assert found["all"]["standard_error"] == pytest.approx((2 / 9 / 3) ** 0.5)
    assert {number: (one["count"], one["of"]) for number, one in found["round"].items()} == {0: (1, 2), 2: (1, 1)}
    assert found["category"]["hateful"]["share"] == 1.0
    assert {style: one["count"] for style, one in found["style"].items()} == {"plain": 2, "role_play": 0}


def test_nothing_decided():
    assert resisted([attack(0)], [None])["all"]["share"] is None
