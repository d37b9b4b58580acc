"""The command line: a wrong flag is answered in words, a right one runs the experiment."""

import json
import pathlib

import pytest

from llama2_jax.training.checkpoints import Checkpoints
from tests.forked_commands import run_module
from tests.two_processes import started

ROOT = pathlib.Path(__file__).parents[1]

EXPERIMENT = """
import dataclasses
from llama2_jax.models.config import PRESETS
from ml_collections import ConfigDict

def get_config(scale="tiny"):
    config = ConfigDict()
    config.update({"experiment": "toy", "scale": scale, "seed": 0, "data": {"root": ""}})
    config.compilation_cache = "compiled"
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.model = dataclasses.asdict(PRESETS["tiny"])
    config.first = {"run": "tests.toy_stage", "value": 1}
    config.second = {"run": "tests.toy_stage", "value": 2, "inputs": {"start": "first"}}
    config.stages = ("first", "second")
    return config
"""


@pytest.fixture
def command(tmp_path):
    """Runs the program in an empty folder with an experiment of two toy stages."""
    (tmp_path / "toy.py").write_text(EXPERIMENT)

    def run(*flags):
        return run_module("llama2_jax.main", *flags, cwd=tmp_path)

    return run


def value_of(path):
    return json.loads((path / "stage.json").read_text())["results"]["value"]


def test_an_experiment_runs_where_its_name_says_and_fields_are_set_by_flags(command, tmp_path):
    done = command("--config=toy.py:small", "--config.second.value=7")
    assert done.returncode == 0, done.stderr
    assert value_of(tmp_path / "runs/toy-small/first") == 1
    assert value_of(tmp_path / "runs/toy-small/second") == 7


def test_data_that_are_not_the_scales_own_are_in_the_folders_name(command, tmp_path):
    variant = (tmp_path / "toy.py").read_text().replace("    return", '    config.variant = "tiny-real"\n    return')
    (tmp_path / "toy.py").write_text(variant)
    done = command("--config=toy.py", "--until=first")
    assert done.returncode == 0, done.stderr
    assert value_of(tmp_path / "runs/toy-tiny-real/first") == 1


def test_a_run_may_end_early_and_somewhere_else(command, tmp_path):
    done = command("--config=toy.py", "--until=first", "--workdir=elsewhere")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["first"]
    assert not (tmp_path / "runs").exists()


def test_a_tilde_is_the_home_folder_in_every_path(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "toy.py").rename(tmp_path / "home/mine.py")
    done = command("--config=~/mine.py", "--until=first", "--workdir=~/run", "--config.compilation_cache=~/cache")
    assert done.returncode == 0, done.stderr
    assert value_of(tmp_path / "home/run/first") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_dry_run_tells_and_runs_nothing(command, tmp_path):
    done = command("--config=toy.py:small", "--dry_run", "--stages=second", "--dry_run_json=report.json")
    assert done.returncode == 0, done.stderr
    assert "toy:small on 1 devices" in done.stdout and "It fits" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["fits"] and [stage["stage"] for stage in report["stages"]] == ["second"]
    assert not (tmp_path / "runs").exists()


def test_the_config_is_printed_with_its_overrides_and_nothing_is_run(command, tmp_path):
    before = set(tmp_path.iterdir())
    done = command("--config=toy.py:small", "--print_config", "--config.second.value=7")
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert shown[0] == 'experiment: "toy"'
    first, second = shown.index("first:"), shown.index("second:")
    assert first < second and shown[second + 1 :] == [
        '  run: "tests.toy_stage"', "  inputs:", '    start: "first"', "  value: 7",
    ]  # fmt: skip
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "__pycache__"}


def test_chosen_parts_of_an_experiment_are_printed(command, tmp_path):
    done = command(
        f"--config={ROOT}/experiments/rlhf_v5.py:7b,miniature", "--print_config", "--stages=rlhf_v5_ppo,sft",
        "--config.safety_threshold=0.25", "--config.optimizer.weight_decay=0.2",
        "--config.sft.finetune.optimizer.weight_decay=0.3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sft, ppo = done.stdout.rstrip().split("\n\n")
    assert sft.startswith("sft:") and "llama2_jax.miniature.demonstrations.demonstrations" in sft
    assert ppo.startswith("rlhf_v5_ppo:") and "      safety_threshold: 0.25" in ppo.splitlines()
    assert "weight_decay: 0.3" in sft and "weight_decay: 0.2" in ppo
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--config must have a value other than None"),
        (["--config=toy.py", "--until=third"], "error: --until=third is not a stage of this experiment; its stages: "),
        (["--config=toy.py", "--config.second.valu=3"], "config.second has no 'valu' (did you mean 'value'?)"),
        (
            ["--config=toy.py", "--config.mesh.mine.limit=1"],
            "error: --config.mesh.mine.limit: config.mesh has no 'mine'; it has: data, fsdp, tensor",
        ),
        (["--config=toy.py", "--config.second.value=three"], "--config.second.value=three: invalid literal for int()"),
        (["--config=toy.py", "--untl=first"], "Unknown command line flag 'untl'. Did you mean: until"),
        (["--config=toy.py", "first"], "unknown arguments: first; fields are set by --config.<stage>.<field>="),
        (["--config=toy.py", "--config.mesh.data=3"], "error: mesh data=3 x fsdp=1 x tensor=1 does not fit"),
        ([f"--config={ROOT}/experiments/sft.py:huge"], "unknown scale 'huge'"),
        (["--config=absent.py"], "No such file or directory: 'absent.py'"),
        (["--config=toy.py", "--topology=v5e:4x4"], "--topology and --dry_run_json belong to --dry_run"),
        ([f"--config={ROOT}/experiments/sft.py:tiny,unreal"], "unknown data 'unreal'"),
        (["--config=toy.py", "--stages=first"], "--stages belongs to --dry_run and --print_config"),
        (["--config=toy.py", "--print_config", "--stages=third"], "error: --stages=third: no such stage here"),
        (["--config=toy.py", "--print_config", "--topology=v5e:4x4"], "--dry_run_json belong to --dry_run"),
        (["--config=toy.py", "--workdir=file:///x"], "error: --workdir=file:///x: file:// cannot be read; a path on"),
        (["--config=toy.py", "--workdir=hf://org/x"], "error: --workdir=hf://org/x: nothing is written to the hub"),
    ],
    ids=[
        "nothing", "a stage", "a field", "a deep field", "a value", "a flag", "argument", "a mesh", "a scale", "a file",
        "a slice", "data", "stages of a run", "a printed stage", "a printed slice", "a workdir", "a workdir on the hub",
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(command, tmp_path, flags, message):
    failed = command(*flags)
    assert failed.returncode != 0
    assert message in failed.stdout + failed.stderr
    assert not (tmp_path / "runs").exists()


def test_an_error_that_the_user_can_mend_comes_without_a_traceback(command, tmp_path):
    command("--config=toy.py")
    failed = command("--config=toy.py", "--config.first.value=5")
    assert failed.returncode == 1
    assert "config.first.value: was 1, is 5" in failed.stderr and "Give --redo=first" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("workdir", "reason"), [("toy.py", "Not a directory"), ("x" * 300, "File name too long")], ids=["file", "long"]
)
def test_a_workdir_that_cannot_be_is_named_in_one_line(command, tmp_path, workdir, reason):
    failed = command("--config=toy.py", f"--workdir={workdir}")
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    (line,) = (line for line in failed.stderr.splitlines() if line.startswith("error: "))
    assert line.startswith(f"error: {tmp_path / workdir}") and line.endswith(f": {reason}")


def test_a_package_that_is_missing_is_named_in_one_line(command, tmp_path):
    (tmp_path / "toy.py").write_text(EXPERIMENT.replace("tests.toy_stage", "stage_of_ones_own"))
    (tmp_path / "stage_of_ones_own.py").write_text("def run(*_):\n    raise ImportError('Please install gcsfs')\n")
    failed = command("--config=toy.py")
    assert failed.returncode == 1
    assert "error: Please install gcsfs" in failed.stderr and "Traceback" not in failed.stderr


@pytest.mark.slow
def test_a_full_disk_is_named_in_one_line_and_the_last_checkpoint_kept(small_disk, tmp_path):
    arguments = [
        "-m", "llama2_jax.main", f"--config={ROOT}/tests/harmed_experiment.py", f"--workdir={small_disk}/run",
        f"--config.compilation_cache={tmp_path}/compiled", "--config.training.log_every=100",
    ]  # fmt: skip
    with started(1, arguments, tmp_path, {"HARM": "fill:5:0"}) as run:
        assert run.wait() == [1]
    folder = small_disk / "run" / "training" / "checkpoints"
    kept = "no room to save the checkpoint of step 6; the checkpoint of step 3 is kept"
    assert f"error: {folder}: {kept}" in run.texts()[0]
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 3
    assert [path.name for path in folder.iterdir()] == ["3"]


@pytest.mark.slow
def test_too_little_memory_is_said_and_the_run_goes_on_with_what_needs_less(tmp_path):
    arguments = [
        "-m", "llama2_jax.main", f"--config={ROOT}/tests/harmed_experiment.py", f"--workdir={tmp_path}/run",
        f"--config.compilation_cache={tmp_path}/compiled",
    ]  # fmt: skip
    metrics = tmp_path / "run" / "training" / "metrics.jsonl"
    with started(1, arguments, tmp_path / "first", {"HARM": "memory:5:0"}) as run:
        assert run.wait() == [1]
    assert "error: a device is out of memory: RESOURCE_EXHAUSTED: Out of memory allocating" in run.texts()[0]
    assert "The same command resumes with another" in run.texts()[0] and "Traceback" not in run.texts()[0]
    saved = metrics.read_text().splitlines()[:3]
    changed = [
        "--config.model.remat=full",
        "--config.model.logits_chunk=8",
        "--config.mesh.fsdp=2",
        "--config.mesh.data=4",
    ]
    with started(1, [*arguments, *changed], tmp_path / "second", {}) as run:
        assert run.wait() == [0]
    lines = metrics.read_text().splitlines()
    assert lines[:3] == saved and [json.loads(line)["step"] for line in lines] == list(range(1, 13))
