"""docs/bring_your_own.md is followed line by line, with a small model in the place of Llama 2."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import jax
import numpy as np
import pytest

from llama2_jax import convert
from llama2_jax.training.model_folder import load_model
from tests.talking import CONFIG, write_talking_model

ROOT = pathlib.Path(__file__).parents[2]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs/bring_your_own.md").read_text(), re.DOTALL)
SIZES = ("vocab_size", "dim", "layers", "heads", "kv_heads", "ffn_hidden", "max_length", "compute_dtype", "scan_layers")
# What makes the experiments' 7B the size of the small model; the page says that such flags are needed.
SMALL = [f"--config.model.{name}={getattr(CONFIG, name)}" for name in SIZES] + [
    "--config.mesh.fsdp=1", "--config.model.remat=none", "--config.sft.finetune.batch_size=1",
]  # fmt: skip


def test_the_page_has_what_is_followed():
    assert [language for language, _ in BLOCKS].count("bash") >= 5
    commands = "".join(text for language, text in BLOCKS if language == "bash")
    assert all(f"llama2_jax.{door}" in commands for door in ("convert", "chat", "main"))


@pytest.mark.slow
def test_every_line_works(tmp_path):
    run = in_folder_with_a_model(tmp_path, "huggingface")
    piqa = tmp_path / "benchmarks/piqa"
    piqa.mkdir(parents=True)
    (piqa / "valid.jsonl").write_text('{"goal": "to swim", "sol1": "the river", "sol2": "the road"}\n')
    (piqa / "valid-labels.lst").write_text("0\n")
    for language, text in BLOCKS:
        if language == "json":
            json.loads(text)
            (tmp_path / "my_dialogues.jsonl").write_text(text * 12)
        elif language == "python" and "def get_config" in text:
            (tmp_path / "mine.py").write_text(text)
        elif language == "python" and not ("transformers" in text and not _has("transformers")):
            run(["-c", text])
        elif language == "bash":
            for line in text.strip().splitlines():
                run_line(run, line)
    assert json.loads((tmp_path / "runs/mine/sft/stage.json").read_text())["results"]["steps"] > 0


@pytest.mark.slow
def test_a_checkpoint_of_meta_is_the_same_once_converted(tmp_path):
    """So behind the page's conversion every line does with it what it does with Hugging Face's."""
    run = in_folder_with_a_model(tmp_path, "meta")
    lines = [line for language, text in BLOCKS if language == "bash" for line in text.strip().splitlines()]
    for line in lines[:2]:
        run_line(run, line)
    ours, converted = (load_model(tmp_path / name) for name in ("ours", "checkpoints/llama-2-7b"))
    jax.tree.map(np.testing.assert_array_equal, ours.params, converted.params)
    assert lines[1].split()[2] == "llama2_jax.convert" and lines[1].split()[-2].endswith("checkpoints/llama-2-7b")


def in_folder_with_a_model(folder, kind):
    """Returns what runs Python in the folder, where `llama-2-7b` is a small model in a format."""
    write_talking_model(folder / "ours")
    convert.convert(convert.open_checkpoint(folder / "ours"), folder / "llama-2-7b", kind)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HOME": str(folder)}

    def run(arguments, given=""):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, input=given,
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def run_line(run, line):
    """Runs a line of the page with what makes it small."""
    command = shlex.split(line)
    assert command[:2] == ["python", "-m"]
    if "experiments/" in line:
        # Only as far as the model from outside: the rounds' data, and a teacher's run, are not here.
        command += ["--print_config" if "distillation" in line else "--until=pretrain"]
        command = [word.replace("experiments/", f"{ROOT}/experiments/") for word in command]
    command += SMALL if "llama2_jax.main" in line else []
    out = run(command[1:], given="the river\n/quit\n" if "chat" in line else "")
    if "chat" in line:
        assert len(out.splitlines()) >= 2, out


def _has(package):
    try:
        __import__(package)
    except ImportError:
        return False
    return True
