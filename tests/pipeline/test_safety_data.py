"""All helpfulness data, and nested parts of the safety data."""

import itertools

import pytest

from llama2_jax.pipeline.safety_data import with_safety_fraction


def row(text, safety=None, answer=True):
    said = [{"role": "user", "content": text}]
    tagged = {} if safety is None else {"safety": safety}
    return {"messages": [*said, {"role": "assistant", "content": "so"}] if answer else said, **tagged}


BAG = [row(f"how {n}?", safety=n % 3 == 0, answer=False) for n in range(90)]  # 30 of safety
DISTILLED = [row(f"why {n}?", safety=True, answer=False) for n in range(70)]
PEOPLE = [row(f"what {n}?") for n in range(20)]
RECORDS = {"bag": BAG, "distilled": DISTILLED, "people": PEOPLE}


def texts(records):
    return {one["messages"][0]["content"] for of_source in records.values() for one in of_source}


@pytest.mark.parametrize(("fraction", "safety"), [(0.0, 0), (0.01, 1), (0.1, 10), (0.25, 25), (0.5, 50), (1.0, 100)])
def test_so_much_of_the_safety_data_and_all_of_the_other(fraction, safety):
    kept, counts = with_safety_fraction(RECORDS, fraction, seed=0)
    assert counts == {"helpfulness": 80, "safety": safety, "safety_of": 100}
    assert sum(bool(one.get("safety")) for of_source in kept.values() for one in of_source) == safety
    assert kept["people"] == PEOPLE
    assert [one for one in kept["bag"] if not one["safety"]] == [one for one in BAG if not one["safety"]]


def test_all_is_all_in_its_order():
    assert with_safety_fraction(RECORDS, 1.0, seed=0)[0] == RECORDS


def test_a_part_is_within_each_larger_one():
    parts = [texts(with_safety_fraction(RECORDS, fraction, seed=0)[0]) for fraction in (0, 0.01, 0.1, 0.25, 0.5, 1)]
    assert all(small < large for small, large in itertools.pairwise(parts))


def test_what_is_taken_is_of_all_sources_and_goes_by_the_seed_and_not_by_the_order():
    half = with_safety_fraction(RECORDS, 0.5, seed=0)[0]
    assert 8 < sum(one["safety"] for one in half["bag"]) < 22, "30 of the 100 are the bag's: 15 give or take 3.2"
    turned = {name: RECORDS[name][::-1] for name in reversed(RECORDS)}
    assert texts(with_safety_fraction(turned, 0.5, seed=0)[0]) == texts(half)
    assert texts(with_safety_fraction(RECORDS, 0.5, seed=1)[0]) != texts(half)


def test_a_tag_that_says_neither_is_refused():
    with pytest.raises(ValueError, match="a dialogue has the field safety 'no'; wanted true or false"):
        with_safety_fraction({"people": [row("how?", safety="no")]}, 0.5, seed=0)


def test_an_answer_is_part_of_a_dialogue_and_not_of_its_prompt():
    """A prompt has one place in the order, with a sampled answer beside it and as a demonstration."""
    sampled, shown = row("how?", safety=True, answer=False), row("how?", safety=True)
    others = [row(f"other {n}?", safety=True) for n in range(40)]
    for fraction in (0.2, 0.4, 0.6, 0.8):
        alone = [with_safety_fraction({"x": [one, *others]}, fraction, seed=0)[0]["x"] for one in (sampled, shown)]
        assert (sampled in alone[0]) == (shown in alone[1])
