"""The paper's own numbers, and what they are made of."""

import pytest

from llama2_jax.evaluation.energy import energy

# GPU hours, watts and tonnes of Llama 2's table 2.
TABLE_2 = {
    "7B": (184_320, 400, 31.22),
    "13B": (368_640, 400, 62.44),
    "34B": (1_038_336, 350, 153.90),
    "70B": (1_720_320, 400, 291.42),
}


@pytest.mark.parametrize("size", TABLE_2)
def test_table_2(size):
    hours, watts, tonnes = TABLE_2[size]
    assert energy(hours, watts).kilograms / 1000 == pytest.approx(tonnes, abs=0.02)


def test_its_total_is_the_sum_of_its_rows():
    assert sum(energy(hours, watts).kilograms for hours, watts, _ in TABLE_2.values()) / 1000 == pytest.approx(
        539.0, abs=0.05
    )


def test_a_data_centre_that_wastes_nothing_on_wind_power():
    assert energy(10, 500, power_usage_effectiveness=1.0, carbon_intensity=0.0) == (5.0, 0.0)
