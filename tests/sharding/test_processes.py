"""Joining other processes: errors name what is missing. A single process needs no communication."""

import pytest

from llama2_jax.sharding.processes import JoinError, from_first, in_any, join

ALL = {"JAX_COORDINATOR_ADDRESS": "host:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"JAX_NUM_PROCESSES": None}, "the environment lacks JAX_NUM_PROCESSES; wanted are"),
        ({"JAX_COORDINATOR_ADDRESS": None, "JAX_PROCESS_ID": ""}, "lacks JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID;"),
        ({"JAX_PROCESS_ID": "one"}, "JAX_PROCESS_ID='one' is not a whole number"),
        ({"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID=2 of JAX_NUM_PROCESSES=2: wanted a number from 0 to 1"),
        ({"JAX_COORDINATOR_ADDRESS": "host"}, "JAX_COORDINATOR_ADDRESS='host' has no port; wanted host:port"),
        (dict.fromkeys(ALL), "neither a TPU pod nor a SLURM job"),
    ],
)
def test_missing_and_wrong_variables_are_named(changes, message, monkeypatch):
    monkeypatch.setattr(
        "jax.distributed.initialize", lambda **_: (_ for _ in ()).throw(ValueError("coordinator_address?"))
    )
    environment = {name: value for name, value in {**ALL, **changes}.items() if value is not None}
    with pytest.raises(JoinError, match=message):
        join(environment=environment)


def test_a_single_process_is_the_first_and_all():
    assert from_first(lambda: (1, 2)) == (1, 2)
    assert in_any(True)() and not in_any(False)()
    with pytest.raises(KeyError, match="as it was raised"):
        from_first(lambda: {}["as it was raised"])
