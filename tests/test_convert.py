"""The door to conversion: there and back without a bit lost, whole or not at all, and little memory."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from llama2_jax import convert
from llama2_jax.interop.checkpoint import DTYPES, BadCheckpoint, parameter_shapes
from llama2_jax.interop.safetensors_file import read_safetensors
from llama2_jax.loading import load
from llama2_jax.models.config import ModelConfig
from llama2_jax.training.model_folder import load_model, tokenizer_path
from tests.forked_commands import run_module
from tests.random_model import FOR_EIGHT, GROUPED, MULTI_HEAD, assert_same, in_memory, random_arrays, train_like
from tests.trained_tokenizer import trained_tokenizer

ROOT = pathlib.Path(__file__).parents[1]


def run(*flags):
    """The door as a user opens it."""
    return run_module("llama2_jax.convert", *flags)


def there_and_back(config, folder, *steps, dtype="float32", head="language"):
    """Converts a model through folders of these kinds and returns the last one, opened, with what it must be."""
    arrays = {name: array.astype(DTYPES[dtype]) for name, array in random_arrays(config, head).items()}
    checkpoint = in_memory(config, arrays, head)
    for number, (kind, options) in enumerate(steps):
        convert.convert(checkpoint, folder / str(number), kind, **options)
        checkpoint = convert.open_checkpoint(folder / str(number), max_length=config.max_length)
        assert checkpoint.kind == kind
    return checkpoint, arrays


def sizes(config):
    fields = dataclasses.asdict(config)
    return {name: fields[name] for name in fields if name not in ("compute_dtype", "scan_layers", "remat", "attention")}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("config", [MULTI_HEAD, GROUPED], ids=["multi_head", "grouped"])
@pytest.mark.parametrize("head", ["language", "scalar"])
def test_orbax_to_huggingface_and_back(tmp_path, config, dtype, head):
    found, arrays = there_and_back(
        config, tmp_path, ("orbax", {}), ("huggingface", {"file_bytes": 9000}), ("orbax", {}), dtype=dtype, head=head
    )  # fmt: skip
    assert (sizes(found.config), found.head, found.dtype) == (sizes(config), head, DTYPES[dtype])
    assert_same(found, arrays)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shards", [1, 2, 8])
def test_orbax_to_meta_and_back(tmp_path, shards, dtype):
    found, arrays = there_and_back(
        FOR_EIGHT, tmp_path, ("orbax", {}), ("meta", {"shards": shards}), ("orbax", {}), dtype=dtype
    )  # fmt: skip
    assert len(list(tmp_path.glob("1/consolidated.*.pth"))) == shards
    assert sizes(found.config) == sizes(FOR_EIGHT)
    assert_same(found, arrays)


def test_through_all_kinds(tmp_path):
    found, arrays = there_and_back(
        FOR_EIGHT, tmp_path, ("meta", {"shards": 8}), ("huggingface", {}), ("meta", {"shards": 2}), ("orbax", {}),
        ("huggingface", {}), ("orbax", {}),
    )  # fmt: skip
    assert_same(found, arrays)


@pytest.fixture
def trained(tmp_path):
    """A folder as training leaves it, with a tokenizer as a run has it."""
    arrays = random_arrays(GROUPED_300)
    train_like(tmp_path / "run/sft", GROUPED_300, arrays)
    trained_tokenizer(["some words and more", "other words"] * 50, 300, tmp_path / "run/tokenizer/tokenizer.model")
    return tmp_path / "run/sft", arrays


GROUPED_300 = dataclasses.replace(GROUPED, vocab_size=300)


@pytest.mark.slow
def test_the_command(trained, tmp_path):
    source, arrays = trained
    done = run(f"--source={source}", f"--target={tmp_path}/there", "--to=huggingface", "--dtype=bfloat16")
    assert done.returncode == 0, done.stderr
    assert "orbax to huggingface: 100%" in done.stderr
    there = convert.open_checkpoint(tmp_path / "there")
    assert_same(there, {name: array.astype(DTYPES["bfloat16"]) for name, array in arrays.items()})
    assert (tmp_path / "there/tokenizer.model").read_bytes() == (
        source.parent / "tokenizer/tokenizer.model"
    ).read_bytes()
    done = run(f"--source={tmp_path}/there", f"--target={tmp_path}/back", "--to=orbax", "--kv_heads=1")
    assert done.returncode == 0, done.stderr
    back = load_model(tmp_path / "back")
    assert back.config.kv_heads == 1
    pooled = there.read("trunk/layers/key", 1).astype(np.float32).reshape(48, 2, 8).mean(axis=1)
    np.testing.assert_allclose(back.params["trunk"]["layers"]["key"][1], pooled, rtol=0.01)  # rounded to bfloat16
    assert (tmp_path / "back/tokenizer.model").exists()
    for flags, message in [
        ([f"--target={tmp_path}/back", "--to=meta"], f"error: {tmp_path}/back exists; choose another target"),
        ([f"--target={tmp_path}/x", "--to=meta", "--shards=4"], "cannot be split over 4 file"),
        ([f"--target={tmp_path}/x", "--to=meta", "--kv_heads=4"], "cannot become 4: choose a divisor"),
        ([f"--target={tmp_path}/x", "--to=meta", "--kv_heads=0"], "cannot become 0: choose a divisor"),
        ([f"--target={tmp_path}/x", "--to=gguf"], "should be one of"),
        ([f"--target={tmp_path}/x", "--to=huggingface", "--shards=2"], "error: --shards belongs to --to=meta"),
        ([f"--target={tmp_path}/x", "--to=meta", "--max_length=99"], "this one, huggingface, says its own"),
    ]:
        done = run(f"--source={tmp_path}/there", *flags)
        assert done.returncode != 0
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "run", "there"]


def test_nan_is_refused_unless_asked_for(tmp_path):
    arrays = random_arrays(GROUPED)
    arrays["trunk/layers/value"][1, 3, 4] = np.nan
    checkpoint = in_memory(GROUPED, arrays)
    with pytest.raises(BadCheckpoint, match=r"1 of 768 values of .*value, layer 1 are NaN or infinite"):
        convert.convert(convert.refuse_nan(checkpoint), tmp_path / "x", "huggingface")
    assert not list(tmp_path.iterdir())
    convert.convert(checkpoint, tmp_path / "x", "huggingface")
    assert_same(convert.open_checkpoint(tmp_path / "x"), arrays)


def test_a_target_that_exists(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(BadCheckpoint, match="x exists; choose another target, or move it away"):
        convert.convert(in_memory(GROUPED, random_arrays(GROUPED)), tmp_path / "x", "orbax")
    assert not list((tmp_path / "x").iterdir())


def test_other_storage_is_refused(tmp_path):
    with pytest.raises(BadCheckpoint, match="gs://bucket/model is not on this machine"):
        convert.open_checkpoint("gs://bucket/model")
    with pytest.raises(BadCheckpoint, match="gs://bucket/model is not on this machine"):
        convert.convert(in_memory(GROUPED, random_arrays(GROUPED)), "gs://bucket/model", "orbax")


def test_a_tokenizer_of_another_model(trained):
    source, _ = trained
    trained_tokenizer(["some words and more", "other words"] * 50, 290, source.parent / "tokenizer/tokenizer.model")
    with pytest.raises(BadCheckpoint, match="has 290 tokens and the model's embedding 300 rows"):
        convert.open_checkpoint(source)


@pytest.mark.parametrize("kind", ["orbax", "huggingface", "meta"])
def test_a_source_that_fails_half_way_leaves_nothing(tmp_path, kind):
    checkpoint = in_memory(GROUPED, random_arrays(GROUPED))

    def read(name, layer=None, index=None):
        if (name, layer) == ("trunk/layers/up", 1):
            raise BadCheckpoint("broken there")
        return checkpoint.read(name, layer, index)

    with pytest.raises(BadCheckpoint, match="broken there"):
        convert.convert(dataclasses.replace(checkpoint, read=read), tmp_path / "x", kind)
    assert not list(tmp_path.iterdir())


def test_values_that_do_not_fit_leave_nothing(tmp_path):
    arrays = random_arrays(GROUPED)
    arrays["head/kernel"][0, 0] = 1e6
    with pytest.raises(BadCheckpoint, match="head/kernel has values too large for float16"):
        convert.convert(in_memory(GROUPED, arrays), tmp_path / "x", "meta", "float16")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_seen_before(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(OSError, match=r"has 0\.0 GB free and 0\.0 GB are needed; nothing was written"):
        convert.convert(in_memory(GROUPED, random_arrays(GROUPED)), tmp_path / "x", "orbax")
    assert not list(tmp_path.iterdir())


LIMITED = """
import resource, sys
from llama2_jax import convert
from tests.random_model import MULTI_HEAD, in_memory, random_arrays
checkpoint = in_memory(MULTI_HEAD, random_arrays(MULTI_HEAD))
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    convert.convert(checkpoint, sys.argv[1], sys.argv[2])
except OSError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["orbax", "huggingface", "meta"])
def test_a_disk_that_fills_up_leaves_nothing(tmp_path, kind):
    # The nearest thing to a full disk that needs no rights: no file of the process may grow beyond 2,000 bytes.
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "x", kind], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert re.search(r"the disk is full: .*x needs 0\.0 GB; nothing was left", done.stdout), done.stderr
    assert not list(tmp_path.iterdir())


SLOWLY = """
import sys, time
from llama2_jax import convert
from tests.random_model import GROUPED, in_memory, random_arrays
def slowly(array):
    time.sleep(0.2)
    return array
import dataclasses
checkpoint = in_memory(GROUPED, random_arrays(GROUPED))
checkpoint = dataclasses.replace(checkpoint, read=lambda *piece, read=checkpoint.read: slowly(read(*piece)))
convert.convert(checkpoint, sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["orbax", "huggingface", "meta"])
def test_a_run_that_is_killed_leaves_nothing_that_looks_whole(tmp_path, kind):
    target = tmp_path / "x"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, target, kind], cwd=ROOT, stderr=subprocess.DEVNULL)
    draft = tmp_path / "x.partial"
    while not (draft.exists() and list(draft.rglob("*.*"))):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    with pytest.raises(BadCheckpoint, match="has no model"):
        convert.open_checkpoint(draft)
    arrays = random_arrays(GROUPED)
    convert.convert(in_memory(GROUPED, arrays), target, kind)
    assert_same(convert.open_checkpoint(target), arrays)
    assert not draft.exists()


def test_a_damaged_source_of_ours(trained, tmp_path):
    source, _ = trained
    description = json.loads((source / "model.json").read_text())
    description["config"]["ffn_hidden"] = 88
    (source / "model.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"has shape \[2, 80, 48\], but model\.json wants \[2, 88, 48\]"):
        convert.open_checkpoint(source)


# Not getrusage: its peak is handed down from the process that started this one, and a process of tests is large.
MEASURED = """
import re, sys
from absl import app
from llama2_jax import convert
try:
    app.run(convert.main, argv=[sys.argv[0], *sys.argv[1:]])
finally:
    print("peak", 1024 * int(re.search("VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_memory_is_bounded_by_the_largest_tensor(tmp_path):
    # 1.3 GB of weights in tensors of at most 66 MB: had they all been in memory, it would show.
    config = ModelConfig(8000, dim=2048, layers=7, heads=16, kv_heads=16, ffn_hidden=4096, max_length=64)
    shapes = parameter_shapes(config, "language")
    block = np.random.default_rng(0).normal(size=(4096, 8192)).astype(np.float32)

    def read(name, layer=None, index=None):
        shape = shapes[name][1:] if layer is not None else shapes[name]
        return block.reshape(-1)[: int(np.prod(shape))].reshape(shape)

    checkpoint = dataclasses.replace(in_memory(config, {"x": block}), read=read)
    convert.convert(checkpoint, tmp_path / "0", "orbax")
    limit = 2 * 8000 * 2048 * 4 + 2**30
    for number, kind in enumerate(("huggingface", "meta", "orbax")):
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, f"--source={tmp_path}/{number}", f"--target={tmp_path}/{number + 1}",
             f"--to={kind}"],
            cwd=ROOT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.split()[-1]) < limit
        shutil.rmtree(tmp_path / str(number))
    with open(tmp_path / "3/model.json") as file:
        assert json.load(file)["config"]["dim"] == 2048


def test_what_others_see_is_what_was_written(tmp_path):
    arrays = random_arrays(GROUPED)
    convert.convert(in_memory(GROUPED, arrays), tmp_path / "x", "huggingface", "float16")
    stored = read_safetensors(tmp_path / "x/model.safetensors")
    np.testing.assert_array_equal(
        stored["model.layers.1.mlp.down_proj.weight"].view(), arrays["trunk/layers/down"][1].T.astype(np.float16)
    )


@pytest.mark.parametrize("to", ["huggingface", "meta"])
def test_the_chat_format_comes_along(trained, tmp_path, to):
    source = tmp_path / "source"
    folder, _ = trained
    shutil.copytree(folder, source, symlinks=True)
    shutil.copyfile(tokenizer_path(folder), source / "tokenizer.model")
    (source / "chat_format.json").write_text('{"name": "vicuna"}')
    convert.convert(convert.open_checkpoint(source), tmp_path / "there", to)
    convert.convert(convert.open_checkpoint(tmp_path / "there"), tmp_path / "back", "orbax")
    assert load(tmp_path / "back").tokenizer.chat_format.name == "vicuna"
    if to == "huggingface":
        described = json.loads((tmp_path / "there" / "tokenizer_config.json").read_text())
        assert "ASSISTANT:" in described["chat_template"]
