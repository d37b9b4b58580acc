"""launch/tpu_pod.sh gives every host the project and the README's command, and stops it so that it can save."""

import json
import os
import pathlib
import subprocess
import tarfile
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "launch/tpu_pod.sh"
HOSTS = 2

# Two folders stand for the home folders of two hosts; what is sent there by ssh runs there.
GCLOUD = """
import json, os, pathlib, shutil, subprocess, sys
here = pathlib.Path(__file__).parents[1]
with open(here / "gcloud.jsonl", "a") as log:
    print(json.dumps(sys.argv[1:]), file=log)
words = [word for word in sys.argv[1:] if not word.startswith("--")]
flags = dict(word[2:].partition("=")[::2] for word in sys.argv[1:] if word.startswith("--"))
hosts = [here / "host0", here / "host1"]
if "worker" in flags and flags["worker"] != "all":
    hosts = [hosts[int(flags["worker"])]]
if words[:4] == ["compute", "tpus", "tpu-vm", "ssh"]:
    sys.exit(max(subprocess.run(["bash", "-c", flags["command"]], cwd=host).returncode for host in hosts))
if words[:4] == ["compute", "tpus", "tpu-vm", "scp"]:
    for host in hosts:
        shutil.copy(words[4], host / words[5].partition(":")[2])
"""
# Notes what it is asked for: to install, or to run until it is told to stop, and then to save.
PYTHON = """
import json, os, pathlib, signal, sys, time
home = pathlib.Path(__file__).parents[2]
with open(home / "python.jsonl", "a") as log:
    print(json.dumps({"command": sys.argv, "folder": os.getcwd()}), file=log)
def save(*_):
    time.sleep(0.3)
    print("saved", flush=True)
    sys.exit(143)
if "llama2_jax.main" in sys.argv:
    signal.signal(signal.SIGTERM, save)
    print("runs", flush=True)
    time.sleep(60)
"""
UV = """
import pathlib, shutil, sys
home = pathlib.Path(__file__).parents[2]
assert sys.argv[1:3] == ["venv", "--seed"] and not (home / sys.argv[-1]).exists()
shutil.copytree(home / "prepared", home / sys.argv[-1])
"""


@pytest.fixture
def pod(tmp_path, commands):
    """Runs the script with gcloud, uv and Python replaced; gives its result."""
    commands("gcloud", GCLOUD)
    for host in range(HOSTS):
        commands("uv", UV, where=tmp_path / f"host{host}/.local/bin")
        commands("python", PYTHON, where=tmp_path / f"host{host}/prepared/bin")

    def run(*arguments, **changes):
        settings = {"PROJECT": "mine", "ZONE": "here", "NAME": "pod", "WORKDIR": "gs://bucket/runs/one"}
        # ps cuts what it prints to the width of a terminal, where the environment tells one.
        environment = {**os.environ, "COLUMNS": "40", **settings, **changes}
        return subprocess.run(
            ["bash", SCRIPT, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )

    return run


def noted(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(path, text):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{text!r} never came in {path}")


@pytest.mark.slow
def test_a_run_from_its_beginning_to_its_end_and_once_more(pod, tmp_path, check_command):
    done = pod("install")
    assert done.returncode == 0, done.stderr
    for host in (tmp_path / "host0", tmp_path / "host1"):
        assert (host / "llama2_jax/llama2_jax/main.py").read_text() == (ROOT / "llama2_jax/main.py").read_text()
        assert not (host / "llama2_jax/.git").exists()
        (installed,) = noted(host / "python.jsonl")
        assert installed["command"][1:4] == ["-m", "pip", "install"] and ".[tpu,gcs]" in installed["command"]
        assert installed["folder"] == str(host / "llama2_jax")

    flags = ["--config.mesh.tensor=4", "--config.data.root=gs://bucket/my data"]
    done = pod("run", *flags, CONFIG="experiments/sft.py:13b")
    assert done.returncode == 0, done.stderr
    for host in (tmp_path / "host0", tmp_path / "host1"):
        wait_for(host / "llama2_jax.log", "runs")
        _, started = noted(host / "python.jsonl")
        values = check_command(started["command"])
        assert values == {
            "distributed": "", "config": "experiments/sft.py:13b", "workdir": "gs://bucket/runs/one",
            "config.mesh.tensor": "4", "config.data.root": "gs://bucket/my data",
        }  # fmt: skip
        assert started["folder"] == str(host / "llama2_jax")

    for action in ("run", "install"):
        refused = pod(action)
        assert refused.returncode != 0 and "a run is alive here: stop it first" in refused.stderr
    assert pod("stop").returncode == 0  # comes back when all is saved
    for host in (tmp_path / "host0", tmp_path / "host1"):
        assert (host / "llama2_jax.log").read_text().splitlines() == ["runs", "saved"]

    assert pod("install").returncode == 0  # once more: new code, and what was installed is kept
    assert pod("run").returncode == 0
    wait_for(tmp_path / "host0/llama2_jax.log", "saved\nruns")
    assert pod("stop").returncode == 0


def test_files_that_git_ignores_stay_at_home(pod, tmp_path):
    assert pod("install").returncode == 0
    with tarfile.open(tmp_path / "host0/llama2_jax.tar.gz") as archive:
        names = archive.getnames()
    assert "experiments/rlhf_v5.py" in names and "pyproject.toml" in names
    assert not any(name.startswith((".git/", "runs/", ".venv")) or "__pycache__" in name for name in names)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("create", ["queued-resources", "create", "pod"]),
        ("status", ["queued-resources", "describe", "pod"]),
        ("delete", ["queued-resources", "delete", "pod"]),
    ],
)
def test_the_slice_is_asked_for_and_given_back(pod, tmp_path, action, words):
    assert pod(action, ACCELERATOR_TYPE="v6e-16", RUNTIME_VERSION="v2-alpha-tpuv6e").returncode == 0
    (called,) = noted(tmp_path / "gcloud.jsonl")
    assert called[:5] == ["compute", "tpus", *words]
    assert {"--project=mine", "--zone=here"} <= set(called)
    if action == "create":
        assert {"--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e", "--node-id=pod"} <= set(called)
        assert "--spot" in called


def test_an_empty_provisioning_is_on_demand(pod, tmp_path):
    assert pod("create", PROVISIONING="").returncode == 0
    (called,) = noted(tmp_path / "gcloud.jsonl")
    assert "--spot" not in called and "" not in called


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        ((), {}, "request the slice"),
        (("start",), {}, "error: start is none of create, status, install, run, logs, stop, delete"),
        (("create",), {"PROJECT": ""}, "set PROJECT to the Google Cloud project"),
        (("run",), {"WORKDIR": "runs/one"}, "error: WORKDIR='runs/one': set it to gs://..."),
        (("run",), {"WORKDIR": ""}, "error: WORKDIR='': set it to gs://..."),
    ],
    ids=["nothing", "an action", "no project", "a folder of each host's own", "no folder"],
)
def test_what_is_wrong_is_said(pod, tmp_path, arguments, changes, message):
    failed = pod(*arguments, **changes)
    assert failed.returncode != 0
    assert message in failed.stdout + failed.stderr
    assert not (tmp_path / "gcloud.jsonl").exists()
