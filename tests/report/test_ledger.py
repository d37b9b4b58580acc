"""What a run cost, from its stages' records."""

import pytest

from llama2_jax.report.ledger import ledger

H100 = {"kind": "NVIDIA H100 80GB HBM3", "count": 8, "processes": 1}
CPU = {"kind": "cpu", "count": 1, "processes": 1}


def test_stages_on_the_same_devices_are_added_up():
    rows = ledger(
        [{"seconds": 1800.0, "devices": H100}, {"seconds": 60.0, "devices": CPU}, {"seconds": 5400.0, "devices": H100}]
    )
    assert [(row["kind"], row["devices"]) for row in rows] == [(H100["kind"], 8), ("cpu", 1)]
    assert (rows[0]["hours"], rows[0]["device_hours"], rows[0]["watts"]) == (2.0, 16.0, 700)
    assert rows[0]["kilowatt_hours"] == pytest.approx(16 * 0.7 * 1.1)
    assert rows[0]["kilograms"] == pytest.approx(16 * 0.7 * 1.1 * 0.385)


def test_of_devices_whose_power_nobody_states_there_are_hours_alone():
    (row,) = ledger([{"seconds": 7200.0, "devices": CPU}])
    assert (row["device_hours"], row["watts"], row["kilowatt_hours"], row["kilograms"]) == (2.0, None, None, None)


def test_stages_that_do_not_say_where_they_ran_are_left_out():
    assert ledger([{"seconds": 7200.0}, {"devices": None, "seconds": 1.0}]) == []
