"""Training with adapters: the base stays as it is, the adapters alone are trained, saved and found again."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.models.adapters import AdaptedMatrix, AdapterConfig, abstract_trained, init_trained
from llama2_jax.models.heads import build_model, init_model
from llama2_jax.models.layer import matmul
from llama2_jax.models.llama import LanguageModel, init_language_model, parameter_shardings
from llama2_jax.pipeline.model_training import fit_language_model, fit_model, language_model_loss, language_model_step
from llama2_jax.pipeline.trainable import adapter_config, divide, in_compute_dtype
from llama2_jax.sharding.batches import shard_rows
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.training.checkpoint_folder import CheckpointError
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.model_folder import load_adaptation, load_model, save_model_description
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from llama2_jax.training.step import build_train_step
from tests.pipeline.test_model_training import Batches, settings
from tests.smallest import smallest_model, smallest_runtime

ADAPTERS = {"rank": 2, "alpha": 4.0, "targets": ("query", "down"), "dropout": 0.0}
KEY = jax.random.key(3)


def write_base(folder):
    """A language model's folder; returns its parameters."""
    params = init_language_model(smallest_model(), jax.random.key(0))
    save_model_description(folder, smallest_model(), "language")
    with Checkpoints(epath.Path(folder) / "checkpoints") as checkpoints:
        checkpoints.save(7, create_state(params, make_optimizer(OptimizerConfig())))
    return jax.device_get(params)


def fit(folder, batches, steps=6, learning_rate=1e-2, **changes):
    """Trains adapters of the model in `base`, beside the folder."""
    runtime = smallest_runtime(folder)
    base = runtime.folder.parent / "base"
    config = settings(learning_rate=learning_rate, warmup_steps=2, adapters={**ADAPTERS, **changes})
    params = load_model(base, runtime.mesh).params
    return jax.device_get(fit_language_model(config, params, batches, steps, runtime, base=base))


def test_a_fit_changes_adapters_alone(tmp_path):
    base = write_base(tmp_path / "base")
    params = fit(tmp_path / "adapted", Batches(), steps=12, learning_rate=5e-2)
    layers = params["trunk"]["layers"]
    assert {name for name, one in layers.items() if isinstance(one, AdaptedMatrix)} == {"query", "down"}
    frozen = {name: one.base if isinstance(one, AdaptedMatrix) else one for name, one in layers.items()}
    found = {"trunk": {**params["trunk"], "layers": frozen}, "head": params["head"]}
    jax.tree.map(np.testing.assert_array_equal, found, base)
    assert all(np.abs(layers[name].b).max() > 0 for name in ("query", "down"))
    runtime = smallest_runtime(tmp_path)
    loss = language_model_loss(runtime.model, runtime.mesh)
    batch = shard_rows(next(Batches()), runtime.mesh)
    assert loss(params, batch) < loss(base, batch) - 0.02


def test_a_checkpoint_has_adapters_and_their_moments_alone(tmp_path):
    write_base(tmp_path / "base")
    fit(tmp_path / "adapted", Batches())
    note = json.loads((tmp_path / "adapted/checkpoints/6/meta/metadata").read_text())
    shapes = abstract_trained(smallest_model(), "language", AdapterConfig(**ADAPTERS))
    wanted = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(shapes)
    }
    assert set(note["arrays"]["params"]) == wanted
    moments = [name for name in note["arrays"]["opt_state"] if "trunk" in name or "head" in name]
    assert len(moments) == 2 * len(wanted)


def test_the_folder_is_read_as_the_merged_model_and_can_be_moved(tmp_path):
    base = write_base(tmp_path / "run/base")
    params = fit(tmp_path / "run/adapted", Batches())
    (tmp_path / "run").rename(tmp_path / "moved")
    loaded = load_model(tmp_path / "moved/adapted").params
    query = params["trunk"]["layers"]["query"]
    wanted = query.base.astype(np.float64) + 2.0 * query.a.astype(np.float64) @ query.b
    # Rounded to float32 once.
    np.testing.assert_allclose(loaded["trunk"]["layers"]["query"], wanted, atol=1e-7)
    np.testing.assert_array_equal(loaded["trunk"]["layers"]["key"], base["trunk"]["layers"]["key"])
    assert load_adaptation(tmp_path / "moved/adapted").adapters == AdapterConfig(**ADAPTERS)
    assert load_adaptation(tmp_path / "moved/base") is None


def test_adapters_of_an_adapted_model_add_up(tmp_path):
    base = write_base(tmp_path / "base")
    fit(tmp_path / "adapted", Batches())
    first = jax.device_get(load_model(tmp_path / "adapted").params)
    runtime = smallest_runtime(tmp_path / "again")
    config = settings(learning_rate=1e-2, adapters=ADAPTERS)
    start = epath.Path(tmp_path) / "adapted"
    fit_language_model(config, load_model(start, runtime.mesh).params, Batches(), 6, runtime, base=start)
    second = load_model(tmp_path / "again").params
    start, once, twice = (np.asarray(tree["trunk"]["layers"]["query"][0]) for tree in (base, first, second))
    # Entries are float32 numbers of about 0.02.
    assert [np.linalg.matrix_rank(one, tol=1e-6) for one in (once - start, twice - once)] == [2, 2]
    assert np.linalg.matrix_rank(twice - start, tol=1e-6) > 2


def test_a_base_that_is_another_or_missing_is_refused(tmp_path):
    write_base(tmp_path / "base")
    fit(tmp_path / "adapted", Batches())
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="has adapters alone, and the model that they belong to is not in"):
        load_model(tmp_path / "adapted")
    save_model_description(tmp_path / "base", smallest_model(), "language")
    with Checkpoints(epath.Path(tmp_path) / "base/checkpoints") as checkpoints:
        other = init_language_model(smallest_model(), jax.random.key(9))
        checkpoints.save(7, create_state(other, make_optimizer(OptimizerConfig())))
    with pytest.raises(CheckpointError, match="is another model than the one that they were trained on"):
        load_model(tmp_path / "adapted")


def test_adapters_without_a_model_are_refused(tmp_path):
    params = init_language_model(smallest_model(), jax.random.key(0))
    with pytest.raises(ValueError, match=r"the_stage: adapters\.rank=2, but there is no model to adapt"):
        fit_language_model(settings(adapters=ADAPTERS), params, Batches(), 2, smallest_runtime(tmp_path))


@pytest.mark.parametrize("rank", [0, None])
def test_rank_0_trains_everything(rank):
    assert adapter_config(ConfigDict({"adapters": {**ADAPTERS, "rank": 0}} if rank == 0 else {})) is None


def test_a_misspelt_field_and_a_negative_rank_are_refused():
    with pytest.raises(ValueError, match="adapters has the unknown field r; wanted rank, alpha, targets, dropout"):
        adapter_config(ConfigDict({"adapters": {"rank": 2, "r": 4}}))
    with pytest.raises(ValueError, match=r"adapters\.rank is -1"):
        adapter_config(ConfigDict({"adapters": {**ADAPTERS, "rank": -1}}))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_fit_that_was_cut_off_ends_with_the_same_bits(tmp_path, dropout):
    write_base(tmp_path / "base")
    expected = fit(tmp_path / "whole", Batches(), dropout=dropout)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", Batches(breaks_off_at=5), dropout=dropout)
    jax.tree.map(np.testing.assert_array_equal, fit(tmp_path / "cut", Batches(), dropout=dropout), expected)


def test_a_product_of_a_rank_is_learnt_and_no_more():
    """The best of rank 1 is the largest singular value (Eckart and Young): what is left is the sum of the others'."""
    rng = np.random.default_rng(0)
    base = jnp.asarray(rng.normal(size=(8, 6)), jnp.float32)
    left, _ = np.linalg.qr(rng.normal(size=(8, 2)))
    right, _ = np.linalg.qr(rng.normal(size=(6, 2)))
    target = base + jnp.asarray(left * [1.0, 0.5] @ right.T, jnp.float32)

    def remaining(rank):
        adapters = AdapterConfig(rank=rank, alpha=float(rank))
        made = init_trained(dataclasses.replace(smallest_model(), dim=8, heads=1), "language", adapters, KEY)
        a = made["trunk"]["layers"]["query"]["a"][0]

        def loss(params, batch, _):
            return jnp.sum((matmul(jnp.eye(8), AdaptedMatrix(batch["base"], **params)) - target) ** 2), {}

        optimizer = make_optimizer(OptimizerConfig(weight_decay=0.0, clip=1e9, b2=0.99))
        step = build_train_step(loss, lambda _: None, optimizer)
        state = create_state({"a": a, "b": jnp.zeros((rank, 6))}, optimizer)
        for index in range(1500):
            state, metrics = step(state, {"base": base}, np.float32(0.02 * (1 - index / 1500)))
        return float(metrics["loss"])

    # Squares of float32 numbers after 1,500 steps, of 1.25 at the start.
    assert remaining(2) < 1e-4
    assert remaining(1) == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_eight_devices_train_adapters_as_one_does(shape):
    model = smallest_model(dim=32, heads=8, kv_heads=8, scan_layers=True, remat="dots")
    adapters = AdapterConfig(rank=2, dropout=0.1)
    batch = next(Batches())
    found = []
    for count, axes in ((1, (1, 1, 1)), (8, shape)):
        mesh = make_mesh(*axes, devices=jax.devices()[:count])
        runtime = smallest_runtime("unused", mesh=mesh, model=model)
        places = parameter_shardings(LanguageModel(model), mesh)
        params = jax.device_put(init_language_model(model, jax.random.key(0)), places)
        trainable = divide("language", params, adapters, KEY, runtime)
        # Factors away from zero, so that the gradients of all count.
        moved = jax.tree.map(lambda leaf: jax.device_put(leaf + 0.1, leaf.sharding), trainable.trained)
        # No clipping, and one step without momentum: a change is the gradient over its own size and eps.
        optimizer = OptimizerConfig(clip=1e9, weight_decay=0.0, eps=1.0)
        step = trainable.bind(language_model_step(model, optimizer, 1, mesh, adapters))
        state, metrics = step(create_state(moved, make_optimizer(optimizer)), shard_rows(batch, mesh), np.float32(1.0))
        found.append((jax.device_get(state.params), float(metrics["loss"]), float(metrics["grad_norm"])))
    (one, *numbers), (other, *others) = found
    assert numbers == pytest.approx(others, rel=3e-5)  # float32 sums in another order
    # Numbers of about 0.1, in float32 sums over a batch.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=5e-6), one, other)


def test_what_is_frozen_is_kept_in_the_compute_dtype_with_the_same_results(tmp_path):
    model = smallest_model(compute_dtype="bfloat16")
    runtime = smallest_runtime(tmp_path, model=model)
    place = jax.NamedSharding(runtime.mesh, jax.P())
    params = jax.device_put(init_model(model, "scalar", jax.random.key(0)), place)
    tokens = jnp.arange(20)[None] + 5
    apply = build_apply(model)
    wanted = apply(params, tokens)
    head = np.asarray(params["head"]["kernel"])
    trainable = divide("scalar", params, AdapterConfig(rank=2), KEY, runtime)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(trainable.frozen)} == {"bfloat16"}
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(trainable.trained)} == {"float32"}
    np.testing.assert_array_equal(trainable.trained["head"]["kernel"], head)
    np.testing.assert_array_equal(apply(trainable.complete(trainable.trained), tokens), wanted)


def build_apply(model):
    module = build_model(model, "scalar")
    ones = jnp.ones((1, 20), jnp.int32)
    return lambda params, tokens: module.apply({"params": params}, tokens, jnp.arange(20)[None], ones)


def test_a_model_in_the_compute_dtype_is_left_alone():
    params = init_language_model(smallest_model(), jax.random.key(0))
    assert jax.tree.leaves(in_compute_dtype(params, smallest_model()))[0] is jax.tree.leaves(params)[0]


def test_fit_model_takes_the_step_of_the_adapters(tmp_path):
    """A step of all parameters would be handed adapters."""
    write_base(tmp_path / "base")
    runtime = smallest_runtime(tmp_path / "adapted")
    base = epath.Path(tmp_path) / "base"
    step = language_model_step(runtime.model, OptimizerConfig(), 1, runtime.mesh)
    with pytest.raises(ValueError, match="was built for all parameters, and frozen parameters were given"):
        fit_model("language", settings(adapters=ADAPTERS), load_model(base, runtime.mesh).params, step, Batches(), 2,
                  runtime, base=base)  # fmt: skip


def fit_with_dropout(folder, batches, **changes):
    """Trains a model of two layers with residual dropout."""
    runtime = smallest_runtime(folder, model=smallest_model(layers=2))
    params = init_language_model(runtime.model, jax.random.key(0))
    config = settings(learning_rate=1e-2, **{"residual_dropout": 0.5, **changes})
    return jax.device_get(fit_language_model(config, params, batches, 6, runtime))


def test_residual_dropout_is_the_same_across_a_resume(tmp_path):
    expected = fit_with_dropout(tmp_path / "whole", Batches())
    with pytest.raises(KeyboardInterrupt):
        fit_with_dropout(tmp_path / "cut", Batches(breaks_off_at=5))
    jax.tree.map(np.testing.assert_array_equal, fit_with_dropout(tmp_path / "cut", Batches()), expected)
    # Nothing of it is left in the model.
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "whole").params, expected)
    without = fit_with_dropout(tmp_path / "without", Batches(), residual_dropout=0.0)
    assert not np.array_equal(without["trunk"]["layers"]["query"], expected["trunk"]["layers"]["query"])


def test_residual_dropout_drops_other_parts_in_each_step_and_microbatch_and_none_without_it(tmp_path):
    model, runtime = smallest_model(layers=2), smallest_runtime(tmp_path, model=smallest_model(layers=2))
    batch = shard_rows({name: np.concatenate([array] * 2) for name, array in next(Batches()).items()}, runtime.mesh)
    losses = {}
    for rate in (0.0, 0.5):
        for accumulation in (1, 2):
            trainable = divide("language", init_language_model(model, KEY), None, KEY, runtime, rate)
            step = trainable.bind(language_model_step(model, OptimizerConfig(), accumulation, runtime.mesh, None, rate))
            state = create_state(trainable.trained, make_optimizer(OptimizerConfig()))
            losses[rate, accumulation] = []
            for _ in range(3):  # at a rate of 0 the parameters stay
                state, metrics = step(state, batch, np.float32(0.0))
                losses[rate, accumulation].append(float(metrics["loss"]))
    assert len(set(losses[0.0, 1])) == 1 and losses[0.0, 1] == pytest.approx(losses[0.0, 2], rel=1e-6)
    assert len(set(losses[0.5, 1])) == len(set(losses[0.5, 2])) == 3
    assert not set(losses[0.5, 1]) & set(losses[0.5, 2])


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)], ids=str)
def test_eight_devices_drop_what_one_does(shape):
    model = smallest_model(layers=2, dim=32, heads=8, kv_heads=8, scan_layers=True, remat="dots")
    batch, found = next(Batches()), []
    for count, axes in ((1, (1, 1, 1)), (8, shape)):
        mesh = make_mesh(*axes, devices=jax.devices()[:count])
        runtime = smallest_runtime("unused", mesh=mesh, model=model)
        places = parameter_shardings(LanguageModel(model), mesh)
        params = jax.device_put(init_language_model(model, jax.random.key(0)), places)
        trainable = divide("language", params, None, KEY, runtime, 0.5)
        optimizer = OptimizerConfig(clip=1e9, weight_decay=0.0, eps=1.0)
        step = trainable.bind(language_model_step(model, optimizer, 1, mesh, None, 0.5))
        state = create_state(trainable.trained, make_optimizer(optimizer))
        state, metrics = step(state, shard_rows(batch, mesh), np.float32(1.0))
        found.append((jax.device_get(state.params), float(metrics["loss"]), float(metrics["grad_norm"])))
    (one, *numbers), (other, *others) = found
    assert numbers == pytest.approx(others, rel=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), one, other)
