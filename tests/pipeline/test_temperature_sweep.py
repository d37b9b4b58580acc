"""A round's temperature: its prompts are of all sources, it is compared in pairs, and chance does not change it."""

import collections

import numpy as np
import pytest

from llama2_jax.pipeline.temperature_sweep import choose_temperature, draw_sweep_prompts, middle_temperature


def records(**counts):
    return [
        {"messages": [{"role": "user", "content": f"{source} {index}"}], "source": source}
        for source, count in counts.items()
        for index in range(count)
    ]


def contents(given, indices):
    return {given[index]["messages"][0]["content"] for index in indices}


def test_every_source_gives_its_share():
    given = records(first=700, second=200, third=100)
    drawn = draw_sweep_prompts(given, 50, seed=3)
    assert collections.Counter(given[index]["source"] for index in drawn) == {"first": 35, "second": 10, "third": 5}
    assert drawn == sorted(set(drawn)) and drawn != list(range(35)) + drawn[35:], "not the first ones"


def test_the_draw_depends_on_the_content_and_the_seed_but_not_on_the_order():
    given = records(first=60, second=40)
    drawn = contents(given, draw_sweep_prompts(given, 20, seed=3))
    backwards = given[::-1]
    assert contents(backwards, draw_sweep_prompts(backwards, 20, seed=3)) == drawn
    assert contents(given, draw_sweep_prompts(given, 20, seed=4)) != drawn


def test_records_without_a_source_are_of_one_and_few_prompts_are_all_taken():
    given = [{"messages": one["messages"]} for one in records(any=7)]
    assert draw_sweep_prompts(given, 48, seed=0) == list(range(7))
    assert len(draw_sweep_prompts(given, 3, seed=0)) == 3


@pytest.mark.parametrize(
    ("temperatures", "middle"),
    [((0.4, 0.6, 0.8), 0.6), ((1.2, 0.8, 1.0), 1.0), ((0.8, 1.0, 1.2, 1.3), 1.0), ((0.7,), 0.7), ((0.8, 1.2), 0.8)],
)
def test_the_middle_temperature_is_the_lower_of_two(temperatures, middle):
    assert middle_temperature(temperatures) == middle


def rewards(leads, noise=0.0, prompts=200, of_prompt=0.3):
    """Two answers to each prompt; prompts differ far more than temperatures do."""
    rng = np.random.default_rng(0)
    common = rng.normal(0.5, of_prompt, prompts)
    found = {}
    for temperature, lead in leads.items():
        best = common + lead + rng.normal(0, noise, prompts)
        found[temperature] = np.stack([best - 0.1, best], axis=1)
    return found


def test_a_lead_within_its_standard_error_leaves_the_middle_temperature():
    """The audit's case: 0.001 ahead, with a standard error of 0.013."""
    found = rewards({0.4: 0.001, 0.6: 0.0, 0.8: -0.2}, noise=0.0)
    found[0.4] = found[0.4] + 0.013 * np.sqrt(200) * np.where(np.arange(200) % 2, 1, -1)[:, None]
    chosen, table = choose_temperature(found)
    assert table["0.4"]["minus_middle"] == pytest.approx(0.001)
    assert table["0.4"]["minus_middle_standard_error"] == pytest.approx(0.013, rel=0.01)
    assert chosen == 0.6


def test_a_lead_beyond_it_is_taken_even_if_prompts_differ_more():
    found = rewards({0.4: 0.0, 0.6: 0.0, 0.8: 0.01}, noise=0.02)
    chosen, table = choose_temperature(found)
    row = table["0.8"]
    assert chosen == 0.8 and row["standard_error"] > 5 * row["minus_middle_standard_error"]
    assert row["mean"] == pytest.approx(found[0.8].max(axis=1).mean())


def test_the_middle_one_stays_where_it_is_the_best():
    chosen, table = choose_temperature(rewards({0.4: -0.1, 0.6: 0.0, 0.8: -0.1}))
    assert chosen == 0.6 and (table["0.6"]["minus_middle"], table["0.6"]["minus_middle_standard_error"]) == (0.0, 0.0)


@pytest.mark.parametrize("missing", [-np.inf, np.nan])
def test_an_answer_that_did_not_end_has_the_lowest_reward(missing):
    found = {1.0: np.asarray([[0.2, missing], [missing, missing]]), 0.5: np.asarray([[0.2, 0.1], [0.0, missing]])}
    chosen, table = choose_temperature(found)
    assert table["1.0"]["mean"] == table["0.5"]["mean"] == 0.1 and chosen == 0.5


def test_a_single_prompt_decides_nothing():
    chosen, table = choose_temperature({0.5: np.asarray([[0.1]]), 0.7: np.asarray([[0.9]]), 0.6: np.asarray([[0.2]])})
    assert chosen == 0.6 and table["0.7"]["minus_middle_standard_error"] is None
