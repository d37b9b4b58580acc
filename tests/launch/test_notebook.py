"""launch/colab.ipynb is clean, and runs from its first cell to its last, with the smallest experiment in it."""

import json
import os
import pathlib
import re
import stat

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOK = ROOT / "launch/colab.ipynb"

# A version before and one after fine-tuning, and one reward model for both kinds: what evaluation needs, and no more.
EXPERIMENT = """
from experiments import rlhf_v1
from tests.smallest import shrink

def get_config(scale="tiny"):
    config = shrink(rlhf_v1.get_config(scale), cache="compiled")
    config.model.layers = 1
    reward = "rlhf_v1_helpfulness_reward"
    config.versions = (("sft_public", "sft_public"), ("sft", "sft"))
    config.evaluation.versions = ("sft_public", "sft")
    config.evaluation.inputs.update({"models": ("sft_public", "sft"), "helpfulness": reward, "safety": reward})
    del config.evaluation.inputs["general"]
    config.evaluation.baseline = "sft_public"
    config.evaluation.instruction_turns = (2,)
    config.stages = (
        "tokenizer", "pretrain", "sft_public", "sft", "rlhf_v1_annotation", reward, "evaluation", "report"
    )
    config.report.inputs.stages = config.stages[:-1]
    return config
"""

# Stands for git: the repository's folder, but nothing that pip would have to fetch.
GIT = """#!/bin/bash
echo "$@" > git.log
mkdir "${@: -1}" && cd "${@: -1}" && touch requirements.txt
for folder in llama2_jax experiments tests; do ln -s "ROOT/$folder" $folder; done
"""


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def cell(notebook, name):
    (found,) = (one for one in notebook.cells if one["id"] == name)
    return found


def printed(notebook, name):
    return "".join(output.get("text", "") for output in cell(notebook, name).outputs)


def test_it_is_valid_and_holds_no_outputs(notebook):
    nbformat.validate(notebook)
    for one in notebook.cells:
        if one.cell_type == "code":
            assert one.outputs == [] and one.execution_count is None, one["id"]


def test_its_experiments_are_there(notebook):
    text = "".join(one.source for one in notebook.cells)
    named = re.findall(r"experiments/\w+\.py", text)
    assert named and all((ROOT / name).exists() for name in named)


@pytest.mark.slow
def test_it_runs_to_its_end(notebook, tmp_path, monkeypatch):
    (tmp_path / "smallest.py").write_text(EXPERIMENT)
    git = tmp_path / "commands/git"
    git.parent.mkdir()
    git.write_text(GIT.replace("ROOT", str(ROOT)))
    git.chmod(git.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{git.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiles faster, and nothing here is long
    parameters = {
        "EXPERIMENT": f"{tmp_path}/smallest.py",
        "OVERRIDES": "--config.pretrain.steps=6 --config.seed=3",
        "WORKDIR": f"{tmp_path}/run",
        "REPOSITORY": "https://example.com/llama2_jax.git",
    }
    for name, value in parameters.items():
        lines = cell(notebook, "parameters").source.splitlines()
        (line,) = (line for line in lines if line.startswith(f"{name} = "))
        cell(notebook, "parameters").source = "\n".join(lines).replace(line, f"{name} = {value!r}")

    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()

    assert (tmp_path / "git.log").read_text() == "clone --depth=1 https://example.com/llama2_jax.git llama2_jax\n"
    report = json.loads((tmp_path / "run/report/report.json").read_text())
    assert report["seed"] == 3
    numbers = printed(notebook, "numbers").splitlines()
    assert [version["name"] for version in report["versions"]] == ["sft_public", "sft"]
    for version in report["versions"]:
        (row,) = (line.split() for line in numbers if line.startswith(f"{version['name']} "))
        shares = [version[name] for name in ("helpfulness", "violation_rate", "win_rate_vs_sft")]
        assert row[1:] == ["-" if share is None else f"{share:.1%}" for share in shares]
    assert any(line.startswith("round 1, helpfulness: {'helpfulness': ") for line in numbers)
    (page,) = cell(notebook, "page").outputs
    assert page["data"]["text/html"].startswith("<iframe srcdoc=") and "&lt;html" in page["data"]["text/html"]
    said = printed(notebook, "generate").splitlines()
    assert [line[:10] for line in said if line.strip()].count("assistant:") == 4
    assert cell(notebook, "reply").outputs
