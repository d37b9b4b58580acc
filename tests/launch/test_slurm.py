"""launch/slurm.sh starts a process a node with the README's command, and asks for another start where that may help."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "launch/slurm.sh"

# Starts a process a node as srun does, with the variables that tell each its place, and ends as the worst of them.
SRUN = """
import json, os, subprocess, sys
first = next(index for index, word in enumerate(sys.argv) if index and not word.startswith("--"))
json.dump({"options": sys.argv[1:first], "command": sys.argv[first:]}, open("srun.json", "w"))
nodes = int(os.environ["SLURM_JOB_NUM_NODES"])
step = {"SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_NODES": str(nodes), "SLURM_LOCALID": "0"}
started = [
    subprocess.Popen(sys.argv[first:], env={**os.environ, **step, "SLURM_PROCID": str(place)}) for place in range(nodes)
]
sys.exit(max(process.wait() for process in started))
"""
# In the place of Python: notes what it was given and ends as it is told.
PROGRAM = """
import json, os, sys, time
seen = {"command": sys.argv, "gpus": os.environ.get("JAX_LOCAL_DEVICE_IDS")}
json.dump(seen, open(f"process{os.environ['SLURM_PROCID']}.json", "w"))
time.sleep(float(os.environ.get("SECONDS_TO_RUN", 0)))
sys.exit(int(os.environ.get("ENDS_WITH", 0)))
"""
# In the place of the project: joins the other processes as --distributed does.
JOINING_MAIN = """
import json, jax
jax.distributed.initialize()
joined = {"processes": jax.process_count(), "devices": jax.device_count(), "mine": jax.local_device_count()}
json.dump(joined, open(f"process{jax.process_index()}.json", "w"))
"""


@pytest.fixture
def job(tmp_path, commands):
    """Starts the script as sbatch would on two nodes with four GPUs each, in an empty folder."""
    commands("srun", SRUN)
    commands("python", PROGRAM, where=tmp_path / ".venv/bin")
    commands("squeue", "import os; print(os.environ.get('JOB_STATE', 'RUNNING'))")
    commands("scontrol", "import sys; open('scontrol.log', 'w').write(' '.join(sys.argv[1:]))")

    def start(*flags, **changes):
        slurm = {
            "SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "8",
            "SLURM_GPUS_ON_NODE": "4",
        }  # fmt: skip
        environment = {**os.environ, **slurm, **changes}
        return subprocess.Popen(
            ["bash", SCRIPT, *flags], cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE
        )

    return start


def directives():
    found = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?", SCRIPT.read_text(), re.MULTILINE))
    assert found
    return found


def test_every_node_gets_the_command(job, tmp_path, check_command):
    assert job("--config.mesh.tensor=8", "--until=sft", WORKDIR="/shared/my runs/one").wait(timeout=30) == 0
    for place in range(2):
        seen = json.loads((tmp_path / f"process{place}.json").read_text())
        assert seen["gpus"] == "0,1,2,3"  # JAX would give each process one
        values = check_command(seen["command"])
        assert values.keys() == {"distributed", "config", "workdir", "config.mesh.tensor", "until"}
        assert values["workdir"] == "/shared/my runs/one"
    options = json.loads((tmp_path / "srun.json").read_text())["options"]
    assert "--cpus-per-task=8" in options  # srun does not take it over from sbatch
    assert "--kill-on-bad-exit=0" in options  # the first process to end must not end those that still save
    assert not (tmp_path / "scontrol.log").exists()


def test_without_gpus_nothing_is_said_of_them(job, tmp_path):
    assert job(SLURM_GPUS_ON_NODE="").wait(timeout=30) == 0
    assert json.loads((tmp_path / "process0.json").read_text())["gpus"] is None


@pytest.mark.parametrize(
    ("status", "changes", "again"),
    [
        (143, {}, True),
        (143, {"SLURM_RESTART_COUNT": "50"}, True),
        (143, {"JOB_STATE": "COMPLETING"}, False),
        (1, {}, True),
        (134, {"SLURM_RESTART_COUNT": "2"}, True),
        (1, {"SLURM_RESTART_COUNT": "3"}, False),
        (0, {}, False),
    ],
    ids=["stopped", "stopped again", "cancelled", "failed", "died", "failed too often", "done"],
)
def test_it_starts_again_where_that_may_help(job, tmp_path, status, changes, again):
    assert job(ENDS_WITH=str(status), **changes).wait(timeout=30) == status
    asked = tmp_path / "scontrol.log"
    assert asked.exists() == again
    assert not again or asked.read_text() == "requeue 77"


def test_a_signal_to_the_script_does_not_keep_it_from_asking(job, tmp_path):
    process = job(ENDS_WITH="143", SECONDS_TO_RUN="1")
    deadline = time.monotonic() + 30
    while not (tmp_path / "process1.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert (tmp_path / "scontrol.log").read_text() == "requeue 77"


def test_several_processes_a_node_are_refused(job, tmp_path):
    process = job(SLURM_NTASKS="16")
    assert process.wait(timeout=30) == 1
    assert "set --ntasks-per-node=1" in process.stderr.read()
    assert not (tmp_path / "srun.json").exists()


def test_slurm_tells_the_processes_and_keeps_the_log():
    asked = directives()
    # Without "B:", which would tell the script alone.
    assert re.fullmatch(r"TERM@\d+", asked["signal"]) and int(asked["signal"][5:]) >= 120
    assert "requeue" in asked and asked["open-mode"] == "append"
    assert asked["ntasks-per-node"] == "1"


@pytest.mark.slow
def test_jax_finds_the_other_nodes_by_itself(job, tmp_path):
    """JAX's own detection reads what the script and srun have set."""
    (tmp_path / "llama2_jax").mkdir()
    (tmp_path / "llama2_jax/__init__.py").touch()  # else an installed llama2_jax would come before it
    (tmp_path / "llama2_jax/main.py").write_text(JOINING_MAIN)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    changes = {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_PORT": str(port), "MAX_RESTARTS": "0"}
    run = job(**changes)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    for place in range(2):
        joined = json.loads((tmp_path / f"process{place}.json").read_text())
        assert joined == {"processes": 2, "devices": 2, "mine": 1}
