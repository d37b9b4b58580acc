"""Asked to stop, a training saves and stops; what is no training ends at once."""

import os
import signal
import subprocess
import sys
import time

import jax
import pytest

from llama2_jax.training import interruption as interruption_module
from llama2_jax.training.interruption import Interruption, watched_signals


@pytest.fixture
def ended(monkeypatch):
    """The exit codes with which the process would have ended."""
    codes = []
    monkeypatch.setattr(interruption_module.os, "_exit", codes.append)
    return codes


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training_is_told_and_a_second_signal_ends_it_at_once(number, ended, capfd):
    handler = signal.getsignal(number)
    with watched_signals() as interruption, interruption.deferred():
        assert not interruption.in_any_process()()
        os.kill(os.getpid(), number)
        wait_for(interruption.in_any_process())
        assert not ended
        os.kill(os.getpid(), number)
        wait_for(lambda: ended)
        ended.clear()
        interruption._signal = 0  # so that the end of the block does not end the process once more
    assert interruption.stopped("x").exit_code == 143
    assert signal.getsignal(number) is handler
    assert f"{number.name}: stopping when this step is done and saved" in capfd.readouterr().err


def test_where_nothing_is_trained_a_signal_ends_the_process_at_once(ended, capfd):
    with watched_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: ended)
    assert ended == [143]
    assert "the same command resumes this stage" in capfd.readouterr().err


def test_a_signal_that_came_too_late_to_be_looked_at_ends_the_process_behind_the_training(ended):
    interruption = Interruption()
    with interruption.deferred():
        interruption.ask(signal.SIGINT)
        assert not ended
    assert ended == [130]


def test_a_process_ends_although_its_main_thread_is_busy_in_a_library():
    """A compiled program that runs for long: no handler of Python's own would be called before its end."""
    program = """
import jax, os, signal, threading
from llama2_jax.training.interruption import watched_signals
forever = jax.jit(lambda x: jax.lax.while_loop(lambda y: y >= 0, lambda y: (y + 1) % 7, x))
with watched_signals():
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    int(forever(0))
"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, capture_output=True, text=True)
    assert done.returncode == 143
    assert "stopped by SIGTERM" in done.stderr and "Traceback" not in done.stderr


def test_one_that_nobody_watches_for_is_never_asked():
    assert not Interruption().in_any_process()()
    assert jax.process_count() == 1
