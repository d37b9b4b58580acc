"""Checkpoints are exact, whole or not there, and say what does not fit."""

import contextlib
import errno

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from absl import logging
from absl.testing import flagsaver
from jax.sharding import NamedSharding, PartitionSpec

from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.training import checkpoints as checkpoints_module
from llama2_jax.training.checkpoint_folder import CheckpointError
from llama2_jax.training.checkpoints import Checkpoints, DiskFullError, restore_params
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import abstract_state, create_state
from llama2_jax.training.step import build_train_step


@pytest.fixture(scope="module")
def state(toy, batch_of):
    """A state with moments that are not zero."""
    optimizer = make_optimizer(OptimizerConfig())
    step = build_train_step(toy.loss, toy.count, optimizer)
    return step(create_state(toy.init(), optimizer), batch_of(0), np.float32(0.01))[0]


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["run [1]", "what?", "all *", "back\\slash"])
def test_a_folder_in_which_no_checkpoint_could_be_finished_is_refused(tmp_path, name):
    with pytest.raises(CheckpointError, match=r"Orbax takes .* in a path for a pattern"):
        Checkpoints(tmp_path / name / "checkpoints")
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["a%20b", "a#b", "one|two", "a]b {c}", "~x"])
def test_a_folder_may_have_any_other_name(tmp_path, state, name):
    with Checkpoints(tmp_path / name) as checkpoints:
        checkpoints.save(1, state)
        found = checkpoints.restore(abstract_state(state)).state
    jax.tree.map(np.testing.assert_array_equal, found, state)


def test_large_stacks_of_layers_are_written_layer_by_layer(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints_module, "CHUNK_BYTES", 64 * 64 * 4)
    params = {"stack": jnp.arange(3.0 * 64 * 64).reshape(3, 64, 64), "matrix": jnp.ones((64, 64)), "scale": jnp.ones(3)}
    state = create_state(params, make_optimizer(OptimizerConfig()))
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(0, state)
        assert_equal(checkpoints.restore(abstract_state(state)).state, state)
    place = {"driver": "ocdbt", "base": f"file://{tmp_path}/c/0/params/", "path": "stack/"}
    written = tensorstore.open({"driver": "zarr", "kvstore": place}).result()
    assert written.chunk_layout.read_chunk.shape == (1, 64, 64)


def test_restores_bit_for_bit(tmp_path, state):
    data = {"position": [3, {"nested": "text"}], "large": 2**60}
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest_step() is None
        checkpoints.save(1, state, data, {"note": "x"})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest_step() == 1
        restored = checkpoints.restore(abstract_state(state))
    assert_equal(restored.state, state)
    assert (restored.data, restored.meta) == (data, {"note": "x"})


def test_a_state_may_be_donated_as_soon_as_it_is_saved(tmp_path, toy, batch_of, monkeypatch):
    monkeypatch.setattr(checkpoints_module, "KEEP_NEWEST", 9)
    optimizer = make_optimizer(OptimizerConfig())
    step = build_train_step(toy.loss, toy.count, optimizer)
    state = create_state(toy.init(), optimizer)
    with Checkpoints(tmp_path) as checkpoints:
        copies = {}
        for number in range(1, 6):
            state, _ = step(state, batch_of(number), np.float32(0.01))
            copies[number] = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)
            checkpoints.save(number, state)
    with Checkpoints(tmp_path) as checkpoints:
        for number, copy in copies.items():
            assert_equal(checkpoints.restore(abstract_state(state), number).state, copy)


def test_keeps_the_newest(tmp_path, state):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (5, 10, 15):
            checkpoints.save(step, state)
        assert checkpoints.latest_step() == 15
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["10", "15"]


def test_what_was_left_half_written_is_not_a_checkpoint(tmp_path, state):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
    # As Orbax names what it has not finished.
    half = tmp_path / "2.orbax-checkpoint-tmp"
    (half / "params").mkdir(parents=True)
    for number in range(200):
        (half / "params" / f"d{number}").write_text("")
    with Checkpoints(tmp_path) as checkpoints:
        assert not half.exists()
        assert checkpoints.latest_step() == 1
        checkpoints.save(2, state)
        assert checkpoints.latest_step() == 2


def test_restores_onto_another_mesh(tmp_path, state, toy):
    mesh = make_mesh(data=2, fsdp=4)
    shardings = jax.tree.map(
        lambda axes: NamedSharding(mesh, PartitionSpec(*axes)), toy.axes, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state.params, shardings
    )
    params = restore_params(tmp_path, abstract)
    assert_equal(params, state.params)
    assert jax.tree.map(lambda leaf: leaf.sharding, params) == shardings


def test_a_wrong_shape_and_a_wrong_dtype_name_their_leaves(tmp_path, state):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
    abstract = abstract_state(state).params
    abstract["head"]["kernel"] = jax.ShapeDtypeStruct((16, 25), jnp.float32)
    abstract["trunk"]["embedding"] = jax.ShapeDtypeStruct((24, 16), jnp.bfloat16)
    with pytest.raises(CheckpointError) as error:
        restore_params(tmp_path, abstract)
    assert "params/head/kernel: the checkpoint has float32[16, 24], expected float32[16, 25]" in str(error.value)
    assert "params/trunk/embedding: the checkpoint has float32[24, 16], expected bfloat16[24, 16]" in str(error.value)
    assert "layers" not in str(error.value)


def test_a_leaf_too_many_or_too_few_is_named(tmp_path, state):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
    abstract = abstract_state(state).params
    abstract["bias"] = abstract["head"].pop("kernel")
    with pytest.raises(CheckpointError, match=r"(?s)bias: the checkpoint has none.*kernel.*expected none"):
        restore_params(tmp_path, abstract)


def test_absence_is_said(tmp_path, state):
    abstract = abstract_state(state)
    with pytest.raises(CheckpointError, match=r"there is no folder of checkpoints at .*missing"):
        restore_params(tmp_path / "missing", abstract.params)
    with Checkpoints(tmp_path / "c") as checkpoints:
        with pytest.raises(CheckpointError, match="there is no checkpoint in"):
            checkpoints.restore(abstract)
        checkpoints.save(3, state)
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 2 .* there are: \[3\]"):
            checkpoints.restore(abstract, 2)


def test_orbax_does_not_chatter_and_the_run_may(tmp_path, state, caplog):
    # absl's verbosity is of the whole process.
    with flagsaver.flagsaver(verbosity=logging.INFO), caplog.at_level("INFO"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        restore_params(tmp_path, abstract_state(state).params)
        logging.info("the run's own words")
    assert [record.getMessage() for record in caplog.records] == ["the run's own words"]


def harm(step_folder, item):
    """Cuts off, empties or removes the largest file of an item."""
    files = (path for path in (step_folder / item).rglob("*") if path.is_file())
    path = max(files, key=lambda path: path.stat().st_size)
    {"params": lambda: path.write_bytes(path.read_bytes()[:-7]), "opt_state": path.unlink}.get(
        item, lambda: path.write_bytes(b"")
    )()
    return path


@pytest.mark.parametrize("item", ["params", "opt_state", "data", "meta"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(tmp_path, state, caplog, item):
    other = jax.tree.map(lambda leaf: leaf + 1, state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, data={"taken": 1})
        checkpoints.save(2, other, data={"taken": 2})
    harmed = f"{tmp_path}/2 is damaged: {harm(tmp_path / '2', item).relative_to(tmp_path / '2')}"
    with pytest.raises(CheckpointError, match=harmed):
        restore_params(tmp_path, abstract_state(state).params)
    with caplog.at_level("WARNING"), Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1
        restored = checkpoints.restore(abstract_state(state))
        checkpoints.save(2, other)
    assert_equal(restored.state, state.replace(step=jnp.asarray(1)))
    assert restored.data == {"taken": 1}
    assert harmed in caplog.text
    assert (tmp_path / "2.damaged").is_dir()
    assert_equal(restore_params(tmp_path, abstract_state(state).params), other.params)


def test_where_none_is_whole_the_training_begins_again_and_nothing_is_deleted(tmp_path, state, caplog):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.save(2, state)
    for step in ("1", "2"):
        harm(tmp_path / step, "params")
    with caplog.at_level("WARNING"), Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None
    assert f"no whole checkpoint is left in {tmp_path}" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.damaged", "2.damaged"]


def test_later_checkpoints_are_removed(tmp_path, state, monkeypatch):
    monkeypatch.setattr(checkpoints_module, "KEEP_NEWEST", 9)
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state)
        checkpoints.remove_after(1)
        assert checkpoints.latest_step() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_full_disk_is_named_and_the_checkpoint_before_it_kept(small_disk, state):
    folder, filler = small_disk / "checkpoints", small_disk / "filler"
    with pytest.raises(DiskFullError) as error, Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state)
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 12)):
                pass
        checkpoints.save(2, state)
    assert error.value.filename == str(folder) and error.value.errno == errno.ENOSPC
    assert "no room to save the checkpoint of step 2; the checkpoint of step 1 is kept" in str(error.value)
    filler.unlink()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 1
        assert_equal(checkpoints.restore(abstract_state(state)).state, state)
        checkpoints.save(2, state)
        assert checkpoints.latest_step() == 2
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


def test_chosen_steps_are_kept_besides_the_newest_and_restored_by_their_number(tmp_path, state):
    params = {number: jax.tree.map(lambda leaf, by=number: leaf + by, state.params) for number in range(1, 8)}
    for steps in (range(1, 5), range(5, 8)):  # as before and after an interruption
        with Checkpoints(tmp_path / "c", kept_steps=(2, 5)) as checkpoints:
            for number in steps:
                checkpoints.save(number, state.replace(params=params[number]))
    assert sorted(int(path.name) for path in (tmp_path / "c").iterdir() if path.name.isdigit()) == [2, 5, 6, 7]
    abstract = abstract_state(state).params
    for step in (2, 5, 7):
        assert_equal(restore_params(tmp_path / "c", abstract, step), params[step])
    assert_equal(restore_params(tmp_path / "c", abstract), params[7])
    with pytest.raises(CheckpointError, match=r"there is no checkpoint of step 3 in .*; there are: \[2, 5, 6, 7\]"):
        restore_params(tmp_path / "c", abstract, 3)
