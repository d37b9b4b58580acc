"""A release in few bits: a folder as any other model's, smaller, and read as what it is."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import llama2_jax.loading
from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.models.heads import init_model
from llama2_jax.models.quantized import QuantizedMatrix, is_quantized, plain, quantization, quantize_layers
from llama2_jax.pipeline.model_training import fit_language_model
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.stages import quantize
from llama2_jax.training.checkpoint_folder import CheckpointError
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.model_folder import load_model, save_model_description
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from tests.pipeline.test_model_training import Batches, settings
from tests.smallest import smallest_model, smallest_runtime

MODEL = smallest_model(dim=64, ffn_hidden=64)


def write(folder, head="language"):
    params = init_model(MODEL, head, jax.random.key(0))
    save_model_description(folder, MODEL, head)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(7, create_state(params, make_optimizer(OptimizerConfig())))
    return params


@pytest.fixture(params=["int8", "int4"])
def released(request, tmp_path):
    """The whole parameters, the stage's results, and the folder."""
    params = write(tmp_path / "whole")
    runtime = smallest_runtime(tmp_path / "small", model=MODEL)
    results = quantize.run(ConfigDict({"quantize": request.param}), {"model": tmp_path / "whole"}, runtime)
    return params, results, tmp_path / "small", request.param


def assert_same(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_it_is_read_as_it_was_made(released):
    params, results, folder, form = released
    wanted = quantize_layers(params, quantization(form))
    assert_same(load_model(folder).params, wanted)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    split = load_model(folder, mesh).params
    assert split["trunk"]["layers"]["gate"].values.sharding.shard_shape((1, 64, 64))[1:] == (32, 32)
    assert_same(jax.device_get(split), jax.device_get(wanted))
    assert results["quantized"] == form
    assert results["bytes"] == sum(leaf.nbytes for leaf in jax.tree.leaves(wanted)) < 0.7 * results["bytes_before"]
    # Rounding to steps of a group's largest weight over 127 or 7: a normal weight is off by 0.29 steps.
    low, high = {"int8": (0.002, 0.01), "int4": (0.05, 0.15)}[form]
    assert set(results["relative_error"]) == {"query", "key", "value", "output", "gate", "up", "down"}
    assert all(low < error < high for error in results["relative_error"].values())


def test_it_is_loaded_to_talk_to_and_converted_as_what_it_restores(released):
    params, _, folder, _ = released
    llama = llama2_jax.load(folder)
    assert_same(llama.params, load_model(folder).params)
    checkpoint = llama2_jax.loading.open_checkpoint(folder)
    gate = llama.params["trunk"]["layers"]["gate"]
    np.testing.assert_array_equal(checkpoint.read("trunk/layers/gate", 0), plain(gate)[0])
    part = (slice(8, 40), slice(0, 5))
    np.testing.assert_array_equal(checkpoint.read("trunk/layers/gate", 0, part), plain(gate)[0][part])
    np.testing.assert_array_equal(checkpoint.read("head/kernel"), params["head"]["kernel"])
    sampling = Sampling(1.0, 1.0, 6)
    one, other = (
        generate(MODEL, tree, [[1, 5]], sampling, jax.random.key(1), 2)[0]
        for tree in (llama.params, {**llama.params, "trunk": {**llama.params["trunk"], "layers": {
            name: plain(leaf) for name, leaf in llama.params["trunk"]["layers"].items()}}})
    )  # fmt: skip
    assert one.tokens.tolist() == other.tokens.tolist()


@pytest.mark.slow
def test_it_cannot_be_trained_but_adapters_beside_it_can(released, tmp_path):
    _, _, folder, _ = released
    runtime = smallest_runtime(tmp_path / "trained", model=MODEL)

    def fit(**changes):
        config = settings(learning_rate=5e-2, warmup_steps=1, **changes)
        return fit_language_model(config, load_model(folder, runtime.mesh).params, Batches(), 4, runtime, base=folder)

    with pytest.raises(ValueError, match="the_stage: the start has its matrices in few bits, which cannot be trained"):
        fit()
    before = jax.device_get(load_model(folder).params)
    adapted = fit(adapters={"rank": 2, "alpha": 4.0, "targets": ("query",), "dropout": 0.0})
    query = adapted["trunk"]["layers"]["query"]
    assert isinstance(query.base, QuantizedMatrix) and np.abs(query.b).max() > 0
    assert_same(jax.device_get(query.base), before["trunk"]["layers"]["query"])
    found = load_model(tmp_path / "trained").params
    assert not is_quantized(found)
    wanted = plain(before["trunk"]["layers"]["query"]) + 2.0 * jnp.matmul(query.a, query.b, precision="highest")
    np.testing.assert_allclose(found["trunk"]["layers"]["query"], wanted, atol=1e-6)
    np.testing.assert_array_equal(found["trunk"]["layers"]["up"], plain(before["trunk"]["layers"]["up"]))


@pytest.mark.slow
def test_adapters_are_trained_beside_what_a_setting_quantises(tmp_path):
    """QLoRA: the base's folder is whole, and the model that is read is the one that was trained."""
    params = write(tmp_path / "whole")
    runtime = smallest_runtime(tmp_path / "trained", model=MODEL)
    adapters = {"rank": 2, "alpha": 4.0, "targets": ("query", "down"), "dropout": 0.0, "quantize": "int4"}
    config = settings(learning_rate=5e-2, warmup_steps=1, adapters=adapters)
    start = load_model(tmp_path / "whole", runtime.mesh).params
    trained = fit_language_model(config, start, Batches(), 4, runtime, base=tmp_path / "whole")
    layers = trained["trunk"]["layers"]
    small = quantize_layers(params, quantization("int4"))["trunk"]["layers"]
    assert_same(jax.device_get(layers["query"].base), jax.device_get(small["query"]))
    assert_same(jax.device_get(layers["up"]), jax.device_get(small["up"]))
    found = load_model(tmp_path / "trained").params["trunk"]["layers"]
    query = layers["query"]
    wanted = plain(small["query"]) + 2.0 * jnp.matmul(query.a, query.b, precision="highest")
    np.testing.assert_allclose(found["query"], wanted, atol=1e-6)
    opened = llama2_jax.loading.open_checkpoint(tmp_path / "trained")
    for name in ("query", "up", "down"):
        np.testing.assert_allclose(opened.read(f"trunk/layers/{name}", 0), found[name][0], atol=1e-6)


def test_a_reward_model_is_released_too(tmp_path):
    params = write(tmp_path / "whole", "scalar")
    runtime = smallest_runtime(tmp_path / "small", model=MODEL)
    quantize.run(ConfigDict({"quantize": "int8"}), {"model": tmp_path / "whole"}, runtime)
    assert_same(load_model(tmp_path / "small", head="scalar").params, quantize_layers(params, quantization("int8")))


def test_a_form_that_there_is_not(tmp_path):
    for name, message in (("", 'quantize="": choose int8 or int4'), ("int2", "quantize='int2': choose one of int8")):
        with pytest.raises(ValueError, match=message):
            quantize.check(ConfigDict({"quantize": name}), {}, None)
    write(tmp_path / "whole")
    description = json.loads((tmp_path / "whole/model.json").read_text())
    (tmp_path / "whole/model.json").write_text(json.dumps({**description, "quantized": "int2"}))
    with pytest.raises(CheckpointError, match=r"model.json: quantize='int2'"):
        load_model(tmp_path / "whole")
