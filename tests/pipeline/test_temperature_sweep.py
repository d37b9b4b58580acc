"""A round's temperature: its prompts are of all sources, it is compared in pairs, and chance does not change it."""

import collections

import numpy as np
import pytest

from llama2_jax.pipeline.temperature_sweep import (
    choose_temperature,
    draw_sweep_prompts,
    middle_temperature,
    needed_standard_errors,
)


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


@pytest.mark.parametrize("lead", [0.001, 0.025])
def test_a_lead_that_may_be_chance_leaves_the_middle_temperature(lead):
    """Seen in runs: 0.001 ahead with a standard error of 0.013, and leads of up to 1.97 standard errors."""
    found = rewards({0.4: lead, 0.6: 0.0, 0.8: -0.2}, noise=0.0)
    found[0.4] = found[0.4] + 0.013 * np.sqrt(200) * np.where(np.arange(200) % 2, 1, -1)[:, None]
    chosen, table = choose_temperature(found, 2, 0.05)
    assert table["0.4"]["minus_middle"] == pytest.approx(lead)
    assert table["0.4"]["minus_middle_standard_error"] == pytest.approx(0.013, rel=0.01)
    assert chosen == 0.6


def test_a_lead_beyond_chance_is_taken_even_if_prompts_differ_more():
    found = rewards({0.4: 0.0, 0.6: 0.0, 0.8: 0.01}, noise=0.02)
    chosen, table = choose_temperature(found, 2, 0.05)
    row = table["0.8"]
    assert chosen == 0.8 and row["standard_error"] > 5 * row["minus_middle_standard_error"]
    assert row["mean"] == pytest.approx(found[0.8].max(axis=1).mean())


def test_the_middle_one_stays_where_it_is_the_best():
    chosen, table = choose_temperature(rewards({0.4: -0.1, 0.6: 0.0, 0.8: -0.1}), 2, 0.05)
    assert chosen == 0.6 and (table["0.6"]["minus_middle"], table["0.6"]["minus_middle_standard_error"]) == (0.0, 0.0)


def test_of_several_that_lead_the_highest_is_taken():
    found = rewards({0.4: 0.05, 0.6: 0.1, 0.8: 0.0, 1.0: -0.1, 1.2: 0.02}, noise=0.02)
    assert choose_temperature(found, 2, 0.05)[0] == 0.6


def test_what_is_compared_is_the_best_of_as_many_answers_as_the_round_samples():
    """Hot answers differ more: alone they are worse, the best of four is better."""
    rng = np.random.default_rng(5)
    found = {t: 0.5 - t / 50 + rng.normal(0, t / 10, (400, 16)) for t in (0.5, 1.0, 1.5)}
    assert choose_temperature(found, 1, 0.05)[0] == 0.5
    assert choose_temperature(found, 4, 0.05)[0] == 1.5


@pytest.mark.parametrize("missing", [-np.inf, np.nan])
def test_an_answer_that_did_not_end_has_the_lowest_reward(missing):
    found = {1.0: np.asarray([[0.2, missing], [missing, missing]]), 0.5: np.asarray([[0.2, 0.1], [0.0, missing]])}
    chosen, table = choose_temperature(found, 2, 0.05)
    assert table["1.0"]["mean"] == table["0.5"]["mean"] == 0.1 and chosen == 0.5


def test_a_single_prompt_decides_nothing():
    found = {0.5: np.asarray([[0.1]]), 0.7: np.asarray([[0.9]]), 0.6: np.asarray([[0.2]])}
    chosen, table = choose_temperature(found, 1, 0.05)
    assert chosen == 0.6 and table["0.7"]["minus_middle_standard_error"] is None
    assert needed_standard_errors(1, 3, 0.05) is None


def test_a_single_temperature_is_taken():
    assert choose_temperature({0.7: np.asarray([[0.1], [0.4]])}, 1, 0.05)[0] == 0.7


def test_how_far_a_lead_must_go():
    """Quantiles of Student's t in printed tables: 47 degrees of freedom and 2.5 %; many, and 1.25 %."""
    assert needed_standard_errors(48, 3, 0.05) == pytest.approx(2.012, abs=1e-3)
    assert needed_standard_errors(10**6, 5, 0.05) == pytest.approx(2.241, abs=1e-3)


def times_left(lead, temperatures, sweeps=600, prompts=48):
    """In how many of the sweeps each temperature is chosen, the middle one first; the highest has the lead.

    As in the miniature's runs: prompts differ by 0.3, one answer from another by 0.05, and rewards end at 1.
    """
    rng = np.random.default_rng(7)
    chosen = dict.fromkeys(temperatures, 0)
    for _ in range(sweeps):
        common = rng.uniform(0.0, 1.0, (prompts, 1))
        found = {
            t: np.minimum(common + lead * (t == max(temperatures)) + rng.normal(0, 0.05, (prompts, 4)), 1.0)
            for t in temperatures
        }
        chosen[choose_temperature(found, 4, 0.05)[0]] += 1
    return {t: count / sweeps for t, count in chosen.items()}


@pytest.mark.parametrize("temperatures", [(0.4, 0.6, 0.8), (0.8, 1.0, 1.1, 1.2, 1.3)])
def test_chance_changes_the_temperature_in_one_of_twenty_sweeps_at_most(temperatures):
    share = times_left(0.0, temperatures)
    # 0.05, and three standard errors of 600 sweeps. With a bound of one standard error it is 0.25 and 0.37.
    assert 1 - share[middle_temperature(temperatures)] < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize("temperatures", [(0.4, 0.6, 0.8), (0.8, 1.0, 1.1, 1.2, 1.3)])
def test_a_lead_of_four_standard_errors_is_found(temperatures):
    # Best of 4 normal rewards: a standard deviation of 0.7 of one; the difference of two, over 48 prompts.
    error = 0.05 * 0.7 * np.sqrt(2 / 48)
    assert times_left(4 * error, temperatures)[max(temperatures)] > 0.85
