"""Wins, ties and losses, counted by hand."""

import pytest

from llama2_jax.evaluation.head_to_head import by_group, outcome
from llama2_jax.evaluation.position_bias import order_agreement, position_bias


def row(category="", tokens=3, turns=1, **fields):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * turns
    return {"messages": messages[:-1], "category": category, "answer_tokens": tokens, "safety": False, **fields}


def test_what_a_label_is_for_each_side():
    labels = [{"preferred": preferred} for preferred in ("a", "b", "tie")]
    assert [outcome(label, "a") for label in labels] == ["win", "loss", "tie"]
    assert [outcome(label, "b") for label in labels] == ["loss", "win", "tie"]


def test_groups():
    ours = [row("list", 5), row("list", 3, seen=True), row("story", 3, turns=2), row("crime", 1, safety=True), row()]
    theirs = [row(tokens=3)] * 5
    found = by_group(["win", "win", "tie", "loss", "win"], ours, theirs)
    assert found["prompts"]["all"] == {
        "wins": 3, "ties": 1, "losses": 1, "rate": 0.75, "standard_error": pytest.approx((0.75 * 0.25 / 4) ** 0.5),
    }  # fmt: skip
    counts = {
        group: {name: (one["wins"], one["ties"], one["losses"]) for name, one in parts.items()}
        for group, parts in found.items()
    }
    assert counts == {
        "prompts": {"all": (3, 1, 1), "seen": (1, 0, 0), "unseen": (2, 1, 1)},
        "safety": {"harmless": (3, 1, 0), "unsafe": (0, 0, 1)},
        "category": {"list": (2, 0, 0), "story": (0, 1, 0), "crime": (0, 0, 1), "none": (1, 0, 0)},
        "turns": {"1": (3, 0, 1), "2": (0, 1, 0)},
        "length": {"longer": (1, 0, 0), "as long": (2, 1, 0), "shorter": (0, 0, 1)},
    }
    assert found["turns"]["2"]["rate"] is None and found["turns"]["2"]["standard_error"] is None


def test_position_bias():
    labels = [{"by_order": ["a", "b"]}, {"by_order": ["a", "a"]}, {"by_order": ["tie", None]}, {"preferred": "a"}]
    assert position_bias(labels) == 0.75
    assert position_bias([{"preferred": "a"}]) is None


def test_agreement_of_the_two_orders():
    assert order_agreement([{"by_order": ["a", "a"]}, {"by_order": ["b", "b"]}]) == 1.0
    biased = order_agreement([{"by_order": ["a", "b"]}] * 4)
    half = order_agreement([{"by_order": ["a", "tie"]}] * 4)
    assert biased < 0 < half < 1
    assert order_agreement([{"preferred": "a"}]) is None
