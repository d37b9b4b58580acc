"""Several processes: each is killed, stopped or asked to stop in turn, and the run ends as if nothing had been."""

import re
import signal

import jax
import numpy as np
import pytest

from llama2_jax import recipe
from llama2_jax.training.interruption import InterruptedRunError, watched_signals
from llama2_jax.training.metrics import read_metrics
from llama2_jax.training.model_folder import load_model
from llama2_jax.training.watchdog import STALLED_EXIT_CODE
from tests import harmed_experiment
from tests.two_processes import ROOT, started

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path):
    """Starts the experiment in one process of 8 devices or two of 4."""

    def start(count, workdir, harm="", *flags):
        arguments = [
            "-m", "llama2_jax.main", f"--config={ROOT}/tests/harmed_experiment.py", f"--workdir={workdir}",
            f"--config.compilation_cache={tmp_path}/compiled",
        ]  # fmt: skip
        if count > 1:
            arguments += ["--distributed", "--heartbeat_timeout=15"]
        return started(
            count, [*arguments, *flags], workdir.parent / f"{workdir.name}_outputs", {"HARM": harm} if harm else {}
        )

    return start


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """Runs the experiment here, as one process of 8 devices."""

    def run(workdir, harm="nothing:0:0", stage="training"):
        monkeypatch.setenv("HARM", harm)
        config = harmed_experiment.get_config()
        config.stages = (stage,)
        with watched_signals() as interruption:
            return recipe.run(config, str(workdir), interruption=interruption)[stage]["results"]

    return run


def steps_saved(workdir):
    return sorted(int(path.name) for path in (workdir / "training" / "checkpoints").iterdir() if path.name.isdigit())


def test_two_processes_that_are_killed_stopped_and_asked_to_stop_end_like_one_that_was_not(start, alone, tmp_path):
    whole, workdir = tmp_path / "whole", tmp_path / "harmed"
    alone(whole)

    # The second process dies: the first one ends with a message, and what was saved is kept.
    with start(2, workdir, "kill:5:1") as run:
        first, second = run.wait()
        assert second == -signal.SIGKILL and first not in (0, second)
        # Of the coordination service, or of the connection between them, whichever notices first.
        assert any(text in run.texts()[0] for text in ("detected fatal errors", "Connection reset by peer"))
    assert steps_saved(workdir) == [3]

    # The first one dies in the middle of a save, when all files are there: the checkpoint is not.
    with start(2, workdir, "kill_in_save:5:0") as run:
        first, second = run.wait()
        assert first == -signal.SIGKILL and second not in (0, first)
    assert steps_saved(workdir) == [3]
    assert any("tmp" in path.name for path in (workdir / "training" / "checkpoints").iterdir())

    # As one process, which is asked to stop.
    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM: training is saved after step 8 of 12"):
        alone(workdir, "ask:8:0")
    assert steps_saved(workdir) == [6, 8]

    # The second process stops answering: the first one waits no longer than it may.
    with start(2, workdir, "stop:11:1", "--heartbeat_timeout=300", "--step_timeout=20") as run:
        assert run.processes[0].wait(120) == STALLED_EXIT_CODE
        # The tenth step may or may not have been under way in the stopped one.
        assert re.search(r"error: training: no step was finished for [\d.]+ s after step (9|10):", run.texts()[0])
        assert "loop.py" in run.texts()[0]
    assert steps_saved(workdir) == [8, 9]

    # One of two is asked to stop: both do, at the same step.
    with start(2, workdir, "ask:10:1") as run:
        assert run.wait() == [143, 143]
        assert "stopped by SIGTERM: training is saved after step 11 of 12" in run.texts()[0]
        assert not any("Traceback" in text for text in run.texts())
    assert steps_saved(workdir) == [9, 11]

    alone(workdir)
    assert [row["step"] for row in read_metrics(workdir / "training" / "metrics.jsonl")] == list(range(1, 13))
    one, other = (load_model(folder / "training").params for folder in (whole, workdir))
    # Sums over devices are not in the same order in one process and in two.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)


def test_two_processes_that_sample_go_on_behind_what_they_kept(start, alone, tmp_path):
    whole, workdir = tmp_path / "whole", tmp_path / "harmed"
    assert alone(whole, stage="sampling") == {"processes": [1] * 5}

    def shards():
        return sorted(int(path.stem) for path in (workdir / "sampling" / "shards" / "answers").glob("*.jsonl"))

    sampling = "--config.stages=('sampling',)"
    with start(2, workdir, "kill:2:1", sampling) as run:
        first, second = run.wait()
        assert second == -signal.SIGKILL and first not in (0, second)
    assert shards() == [0]

    with start(2, workdir, "stop:4:1", "--heartbeat_timeout=300", "--step_timeout=3", sampling) as run:
        assert run.processes[0].wait(180) == STALLED_EXIT_CODE
        assert re.search(r"error: sampling, answers: no step was finished for [\d.]+ s after step 24:", run.texts()[0])
    assert shards() == [0, 8, 16]

    with start(2, workdir, "ask:5:0", sampling) as run:
        assert run.wait()[0] == 143
        assert "the same command resumes this stage" in run.texts()[0]
    assert shards() == [0, 8, 16, 24]

    assert alone(workdir, stage="sampling") == {"processes": [2, 2, 2, 2, 1]}
    one, other = ((folder / "sampling" / "answers.jsonl").read_text() for folder in (whole, workdir))
    assert one == other and shards() == []
