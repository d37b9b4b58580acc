"""Comparisons are held out by prompt, and a prompt is on the same side in all rounds."""

import itertools
import random

import pytest

from llama2_jax.data.held_out import check_test_comparisons, part_by_prompt, split_by_prompt, without_test_prompts


def rows(*prompts, **fields):
    return [
        {"messages": [{"role": "user", "content": f"question {prompt}"}], "chosen": f"answer {place}", **fields}
        for place, prompt in enumerate(prompts)
    ]


def prompts_of(comparisons):
    return {row["messages"][0]["content"] for row in comparisons}


def drawn(seed, count, of=60):
    """Prompts with many repetitions, as a small world gives them."""
    rng = random.Random(seed)
    return [rng.randrange(of) for _ in range(count)]


def test_comparisons_of_one_prompt_are_on_one_side_and_none_is_lost():
    given = rows(*drawn(0, 100))
    training, test = split_by_prompt(given, 30, "round")
    assert not prompts_of(training) & prompts_of(test)
    assert [row for row in given if row in test] == test and [row for row in given if row in training] == training
    assert len(test) == 30 and len(training) == 70


def test_a_prompt_is_on_the_same_side_in_all_rounds():
    training, test = [], []
    for number in range(5):
        given = rows(*drawn(number, 60, of=120))
        split = split_by_prompt(given, 15, "round", earlier_training=training, earlier_test=test)
        assert len(split.test) + len(split.training) == 60
        assert 12 <= len(split.test) <= 20, "about as many as wanted, though many prompts come again"
        training, test = training + split.training, test + split.test
    assert not prompts_of(training) & prompts_of(test)


def test_batches_of_any_size_hold_out_as_many_as_wanted():
    """The paper holds out 1,000 of each batch, from 5,561 comparisons to 249,356: no fixed share."""
    small = split_by_prompt(rows(*range(60)), 20, "round")
    large = split_by_prompt(
        rows(*range(60, 900)), 20, "round", earlier_training=small.training, earlier_test=small.test
    )
    assert (len(small.test), len(large.test)) == (20, 20)


def test_the_split_depends_on_the_prompts_alone():
    given = rows(*range(40))
    shuffled = random.Random(0).sample(given, 40)
    assert prompts_of(split_by_prompt(given, 10, "round").test) == prompts_of(split_by_prompt(shuffled, 10, "x").test)


def test_prompts_that_are_all_known_give_what_they_gave():
    first = split_by_prompt(rows(*range(20)), 5, "round")
    again = split_by_prompt(rows(*range(20)), 9, "round", earlier_training=first.training, earlier_test=first.test)
    assert again == first


def test_a_prompt_that_was_on_both_sides_is_held_out():
    training, test = split_by_prompt(rows(1, 2), 0, "round", earlier_training=rows(1, 2), earlier_test=rows(1))
    assert (prompts_of(training), prompts_of(test)) == ({"question 2"}, {"question 1"})


def test_nothing_left_to_train_on():
    with pytest.raises(ValueError, match=r"round: all 3 comparisons that were made, of 2 prompts, are held out"):
        split_by_prompt(rows(1, 1, 2), 3, "round")


@pytest.mark.parametrize(
    ("wanted", "prompts", "message"),
    [
        (1000, 280, r"test_comparisons=1000, but 280 prompts give at most 280 .*at least 1001.*at most 279"),
        (5, 5, "at least 6 prompts, or hold out at most 4"),
        (-1, 5, "test_comparisons=-1; wanted 0 or more"),
    ],
)
def test_more_than_the_prompts_can_give_is_refused_at_once(wanted, prompts, message):
    with pytest.raises(ValueError, match=message):
        check_test_comparisons(wanted, prompts)


def test_what_the_prompts_can_give():
    check_test_comparisons(4, 5)
    check_test_comparisons(0, 1)


def test_comparisons_of_test_prompts_are_left_out_and_counted():
    files = rows(1, 2, 2, 3, source="file")
    files[0]["messages"][0]["content"] = " question 1\n"
    assert without_test_prompts(files, rows(1, 2, 9)) == (files[3:], 3)
    assert without_test_prompts(files, []) == (files, 0)


def test_a_part_is_of_prompts_and_within_every_larger_part():
    given = rows(*drawn(0, 4000, of=2000))
    parts = [part_by_prompt(given, fraction, seed=0) for fraction in (0.125, 0.25, 0.5, 1.0)]
    assert parts[-1] == given
    for smaller, larger in itertools.pairwise(parts):
        assert all(row in larger for row in smaller[:50]) and prompts_of(smaller) < prompts_of(larger)
        left_out = [row for row in given if row not in smaller]
        assert not prompts_of(smaller) & prompts_of(left_out)
    # Four standard deviations of a share of some 1,700 prompts.
    shares = [len(prompts_of(part)) / len(prompts_of(given)) for part in parts]
    assert shares == pytest.approx([0.125, 0.25, 0.5, 1], abs=0.05)


def test_more_comparisons_leave_a_part_s_prompts_where_they_are():
    few, many = (part_by_prompt(rows(*range(count)), 0.5, seed=0) for count in (50, 100))
    assert prompts_of(few) == prompts_of(many) & prompts_of(rows(*range(50)))
    assert prompts_of(part_by_prompt(rows(*range(100)), 0.5, seed=1)) != prompts_of(many)
