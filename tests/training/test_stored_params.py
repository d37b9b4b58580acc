"""Parameters written and read a layer at a time are the checkpoints that Orbax writes and reads."""

import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from llama2_jax.interop.checkpoint import DTYPES, parameter_shapes
from llama2_jax.models.llama import LanguageModel, parameter_shardings
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.training import stored_params
from llama2_jax.training.checkpoint_folder import CheckpointError, check_whole, copy_checkpoints
from llama2_jax.training.manifest import write_manifest
from llama2_jax.training.model_folder import load_model, save_model_description, tokenizer_path
from llama2_jax.training.stored_params import ParamsReader, ParamsWriter
from tests.random_model import FOR_EIGHT, as_tree, random_arrays, train_like

SHAPES = parameter_shapes(FOR_EIGHT, "language")
STACKED = "trunk/layers/"


def write(folder, arrays, dtype="float32"):
    writer = ParamsWriter(folder, SHAPES, STACKED, DTYPES[dtype])
    for name, array in reversed(arrays.items()):  # in any order
        if name.startswith(STACKED):
            for layer in reversed(range(len(array))):
                writer.write(name, layer, array[layer].astype(DTYPES[dtype]))
        else:
            writer.write(name, None, array.astype(DTYPES[dtype]))
    writer.close()
    save_model_description(folder, FOR_EIGHT, "language")


def assert_read(reader, arrays):
    for name, array in arrays.items():
        layers = enumerate(array) if name.startswith(STACKED) else [(None, array)]
        for layer, wanted in layers:
            np.testing.assert_array_equal(reader.read(name, layer), wanted, strict=True)
            part = (slice(1, 8),) + (slice(3, 4),) * (wanted.ndim - 1)
            np.testing.assert_array_equal(reader.read(name, layer, part), wanted[part], strict=True)


@pytest.mark.parametrize("chunk_bytes", [1 << 26, 1000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_orbax_restores_what_is_written(tmp_path, monkeypatch, chunk_bytes, dtype):
    monkeypatch.setattr(stored_params, "CHUNK_BYTES", chunk_bytes)
    arrays = random_arrays(FOR_EIGHT)
    write(tmp_path, arrays, dtype)
    stored = {name: array.astype(DTYPES[dtype]) for name, array in arrays.items()}
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    wanted = as_tree({name: array.astype(np.float32) for name, array in stored.items()})
    for model in (load_model(tmp_path), load_model(tmp_path, mesh)):
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), model.params, wanted)
    assert jax.tree.map(lambda leaf: leaf.sharding, model.params) == parameter_shardings(LanguageModel(FOR_EIGHT), mesh)
    reader = ParamsReader(tmp_path, SHAPES)
    assert set(reader.dtypes.values()) == {DTYPES[dtype]}
    assert_read(reader, stored)


def test_what_is_written_is_finished_where_a_marker_says_so(tmp_path):
    """On storage that cannot rename a folder (gs://), Orbax goes by a file in it, which its class here looks for."""
    arrays = random_arrays(FOR_EIGHT)
    write(tmp_path, arrays)
    folder, by_marker = epath.Path(tmp_path) / "checkpoints", ocp.path.atomicity.CommitFileTemporaryPath
    for part in (folder / "0", folder / "0/params", folder / "0/meta"):
        assert ocp.path.step.is_path_finalized(part, temporary_path_cls=by_marker)
    assert not ocp.path.step.all_temporary_paths(folder, temporary_path_cls=by_marker), "a training would remove it"
    options = ocp.CheckpointManagerOptions(temporary_path_class=by_marker, create=False)
    with ocp.CheckpointManager(folder, options=options) as manager:
        assert manager.all_steps() == [0]
        found = manager.restore(0, args=ocp.args.Composite(params=ocp.args.StandardRestore()))["params"]
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), found, as_tree(arrays))


@pytest.mark.parametrize("marked", [True, False])
def test_a_copy_is_finished_whatever_the_original_has(tmp_path, marked):
    """Older versions of Orbax write no marker where they can rename a folder."""
    train_like(tmp_path / "here", FOR_EIGHT, random_arrays(FOR_EIGHT))
    if not marked:
        for marker in (tmp_path / "here").rglob("commit_success.txt"):
            marker.unlink()
        write_manifest(epath.Path(tmp_path) / "here/checkpoints/7")
    there = epath.Path(tmp_path) / "there"
    copy_checkpoints(epath.Path(tmp_path) / "here/checkpoints", there)
    by_marker = ocp.path.atomicity.CommitFileTemporaryPath
    assert ocp.path.step.is_path_finalized(there / "7", temporary_path_cls=by_marker)
    assert not ocp.path.step.all_temporary_paths(there, temporary_path_cls=by_marker)
    check_whole(there / "7")


def test_a_checkpoint_that_lacks_a_layer_is_not_finished(tmp_path):
    writer = ParamsWriter(tmp_path, SHAPES, STACKED, DTYPES["float32"])
    for name, array in random_arrays(FOR_EIGHT).items():
        for layer in range(len(array)) if name.startswith(STACKED) else [None]:
            if (name, layer) != ("trunk/layers/up", 1):
                writer.write(name, layer, array if layer is None else array[layer])
    with pytest.raises(ValueError, match=r"not written: 1 parameters or layers, such as trunk/layers/up, layer 1"):
        writer.close()
    assert not list(tmp_path.rglob("commit_success.txt"))


def test_what_training_leaves_is_read(tmp_path):
    arrays = random_arrays(FOR_EIGHT)
    train_like(tmp_path, FOR_EIGHT, arrays)
    assert_read(ParamsReader(tmp_path, SHAPES), arrays)


def test_what_training_on_a_mesh_leaves_is_read(tmp_path):
    arrays = random_arrays(FOR_EIGHT)
    train_like(tmp_path / "alone", FOR_EIGHT, arrays)
    params = load_model(tmp_path / "alone", make_mesh(1, 4, 2)).params
    train_like(tmp_path / "mesh", FOR_EIGHT, {name: _leaf(params, name) for name in arrays})
    assert_read(ParamsReader(tmp_path / "mesh", SHAPES), arrays)


def _leaf(tree, name):
    for part in name.split("/"):
        tree = tree[part]
    return tree


def test_the_newest_checkpoint_is_read(tmp_path):
    write(tmp_path, random_arrays(FOR_EIGHT, seed=0))
    arrays = random_arrays(FOR_EIGHT, seed=1)
    train_like(tmp_path, FOR_EIGHT, arrays)
    assert_read(ParamsReader(tmp_path, SHAPES), arrays)


@pytest.mark.parametrize("name", ["a%20b", "what?", "one|two", "a#b", "[1] *", "back\\slash"])
def test_a_folder_may_have_any_name(tmp_path, name):
    arrays = random_arrays(FOR_EIGHT)
    (tmp_path / "a b").mkdir()  # what the first of them means as a part of a URL
    (tmp_path / name).mkdir()
    write(tmp_path / name, arrays)
    assert_read(ParamsReader(tmp_path / name, SHAPES), arrays)
    assert not list((tmp_path / "a b").iterdir())


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint in"):
        ParamsReader(tmp_path, SHAPES)
    write(tmp_path, random_arrays(FOR_EIGHT))
    with pytest.raises(CheckpointError, match=r"trunk/final_norm has shape \[64\], but model\.json wants \[32\]"):
        ParamsReader(tmp_path, {**SHAPES, "trunk/final_norm": (32,)})
    with pytest.raises(CheckpointError, match="trunk/bias is missing or damaged"):
        ParamsReader(tmp_path, {**SHAPES, "trunk/bias": (64,)})
    params = tmp_path / "checkpoints/0/params"
    for file in (params / "d").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="damaged"):
        assert_read(ParamsReader(tmp_path, SHAPES), random_arrays(FOR_EIGHT))
    (params / "_METADATA").unlink()
    with pytest.raises(CheckpointError, match="has no parameters"):
        ParamsReader(tmp_path, SHAPES)


def test_the_tokenizer_of_a_model_is_found(tmp_path):
    run = tmp_path / "run"
    for name in ("sft", "tokenizer", "bytes"):
        (run / name).mkdir(parents=True)
    assert tokenizer_path(run / "sft") is None
    (run / "tokenizer/tokenizer.model").touch()
    assert tokenizer_path(run / "sft") == run / "tokenizer/tokenizer.model"
    (run / "bytes/tokenizer.model").touch()
    (run / "sft/stage.json").write_text(json.dumps({"inputs": {"start/pretrain": "0", "tokenizer/bytes": "1"}}))
    assert tokenizer_path(run / "sft") == run / "bytes/tokenizer.model"
    for broken in ("{", "[]", '{"inputs": null}'):
        (run / "sft/stage.json").write_text(broken)
        with pytest.raises(CheckpointError, match=r"stage\.json is not the record of a stage"):
            tokenizer_path(run / "sft")
    (run / "sft/stage.json").unlink()
    (run / "sft/tokenizer.model").touch()
    assert tokenizer_path(run / "sft") == run / "sft/tokenizer.model"
