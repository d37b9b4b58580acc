"""`~` is the home folder, wherever a path comes from."""

import os
import pathlib

import pytest

from experiments import sft
from llama2_jax import convert, dry_run, recipe
from llama2_jax.interop.checkpoint import BadCheckpoint, local_folder
from llama2_jax.paths import absolute, expand_home
from llama2_jax.text.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_only_a_tilde_in_front_is_the_home_folder(home, tmp_path):
    assert [expand_home(path) for path in ("~", "~/x", pathlib.Path("~/x"))] == [str(home), f"{home}/x", f"{home}/x"]
    for path in ("", "x", "/x", "x/~/y", "x~", "gs://bucket/~", "runs/rlhf_v5-tiny"):
        assert expand_home(path) == path
    assert absolute("~/x") == f"{home}/x" and absolute("x") == os.fspath(tmp_path / "x")
    assert absolute("gs://bucket/x") == "gs://bucket/x"


@pytest.mark.parametrize("path", ["file:///data/x", "https://host/x", "ftp://host/x"])
def test_what_cannot_be_read_is_refused(path):
    scheme = path.split("//")[0]
    with pytest.raises(ValueError, match=f"^{path}: {scheme}// cannot be read"):
        expand_home(path)


def test_a_path_on_this_machine_is_written_without_file():
    with pytest.raises(ValueError, match=r"a path on this machine is written without it, /data/x$"):
        expand_home("file:///data/x")


def test_a_config_may_name_it(home):
    config = sft.get_config()
    config.data.root, config.given.pretrain = "~/data", "~/llama"
    planned = recipe.with_given(config)
    assert (planned.data.root, planned.pretrain.folder) == (f"{home}/data", f"{home}/llama")
    assert config.data.root == "~/data", "the experiment itself is not changed"


def test_models_tokenizers_and_reports_may_be_there(home, tmp_path):
    assert local_folder("~/llama") == home / "llama"
    with pytest.raises(BadCheckpoint, match=f"{home}/llama does not exist"):
        convert.open_checkpoint("~/llama")
    with pytest.raises(FileNotFoundError, match=f"{home}/tokenizer.model"):
        Tokenizer.load("~/tokenizer.model")
    dry_run.write_json({}, "~/sizes/report.json")
    assert (home / "sizes/report.json").exists() and not (tmp_path / "~").exists()
