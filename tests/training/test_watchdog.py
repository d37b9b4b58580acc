"""A training that stalls is ended with a message; one that goes on, compiles or was suspended is not."""

import re
import threading
import time

import pytest

from llama2_jax.training import watchdog as watchdog_module
from llama2_jax.training.watchdog import STALLED_EXIT_CODE, Watchdog


@pytest.fixture
def ended(monkeypatch):
    """Stands for the end of the process."""

    class Ended(threading.Event):
        code = None

        def __call__(self, code):
            self.code = code
            self.set()

    end = Ended()
    monkeypatch.setattr(watchdog_module.os, "_exit", end)
    return end


def test_a_step_that_never_ends_is_named_and_shown(ended, capfd):
    with Watchdog(0.3, "the_stage") as watchdog:
        watchdog.finished(7)
        assert ended.wait(10)
    assert ended.code == STALLED_EXIT_CODE
    text = capfd.readouterr().err
    assert re.search(r"error: the_stage: no step was finished for 0\.[34] s after step 7", text)
    assert "test_a_step_that_never_ends_is_named_and_shown" in text


def test_before_the_first_step_and_while_steps_are_finished_nothing_happens(ended):
    with Watchdog(1.0, "the_stage") as watchdog:
        time.sleep(1.5)
        for step in range(15):
            watchdog.finished(step)
            time.sleep(0.1)
    assert not ended.is_set()


def test_a_step_that_is_slow_as_those_before_it_has_not_stalled(ended, capfd):
    with Watchdog(0.1, "the_stage") as watchdog:
        time.sleep(0.5)
        watchdog.finished(1)
        time.sleep(0.8)
        watchdog.finished(2)
        assert not ended.is_set()
        # Three times the longest step is 2.4 s.
        assert not ended.wait(1.6)
        assert ended.wait(10)
    assert re.search(r"no step was finished for \d\.\d s after step 2", capfd.readouterr().err)


def test_what_a_suspended_process_slept_through_is_not_counted(ended, monkeypatch):
    clock = iter([0.0, 0.1, 1000.0, *(1000.0 + number / 100 for number in range(1, 1000))])
    monkeypatch.setattr(watchdog_module.time, "monotonic", lambda: next(clock))
    with Watchdog(1.0, "the_stage") as watchdog:
        watchdog.finished(1)
        time.sleep(0.6)
    assert not ended.is_set()


def test_no_time_means_no_watch(ended):
    before = threading.active_count()
    with Watchdog(0, "the_stage") as watchdog:
        watchdog.finished(1)
        assert threading.active_count() == before
