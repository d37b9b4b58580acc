"""What a stage gets besides its config and inputs."""

import hashlib

import jax
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.pipeline.runtime import (
    configured_function,
    named_key,
    stable_hash,
    stage_key,
    stage_seed,
    versions,
)
from tests.smallest import smallest_runtime


def what_it_was_given(rows, **arguments):
    """A function that a config may name."""
    return rows, arguments


def part(function="what_it_was_given", **arguments):
    return ConfigDict({"function": f"{__name__}.{function}", "arguments": arguments})


def test_a_configured_function_gets_the_world_s_seed_its_arguments_and_the_annotators_folders(tmp_path):
    inputs = {"tokenizer": epath.Path("t"), "newest": epath.Path("n"), "annotator_safety": epath.Path("s")}
    runtime = smallest_runtime(tmp_path, experiment_seed=9)
    rows, arguments = configured_function(part(noise=0.5), inputs, runtime)(["row"])
    assert rows == ["row"]
    assert arguments == {"seed": 9, "noise": 0.5, "annotator_safety": epath.Path("s")}


def of_the_stage(rows, *, stage_seed):
    """A function whose draws differ from round to round."""
    return rows, stage_seed


def test_a_configured_function_that_asks_for_the_stage_s_seed_gets_it(tmp_path):
    runtime = smallest_runtime(tmp_path, seed=77, experiment_seed=9)
    assert configured_function(part("of_the_stage"), {}, runtime)(["row"]) == (["row"], 77)


def on_devices(rows, *, seed, mesh):
    """A function that computes on the run's devices."""
    return rows, seed, mesh


def test_a_configured_function_that_asks_for_the_mesh_gets_it(tmp_path):
    runtime = smallest_runtime(tmp_path)
    assert configured_function(part("on_devices"), {}, runtime)(["row"]) == (["row"], 0, runtime.mesh)


def test_a_configured_function_may_have_no_arguments(tmp_path):
    config = ConfigDict({"function": f"{__name__}.what_it_was_given"})
    assert configured_function(config, {}, smallest_runtime(tmp_path))([]) == ([], {"seed": 0})


@pytest.mark.parametrize(
    "path", ["no_such_module.function", "llama2_jax.pipeline.runtime.no_such_function", "function"]
)
def test_a_function_that_is_not_there(tmp_path, path):
    with pytest.raises(ValueError, match=rf"no function '{path}'.*wanted package\.module\.function"):
        configured_function(ConfigDict({"function": path}), {}, smallest_runtime(tmp_path))


def test_a_stable_hash_is_the_same_in_every_process_and_fits_a_key():
    assert stable_hash("sft") == int(hashlib.sha256(b"sft").hexdigest()[:8], 16) // 2
    assert all(0 <= stable_hash(str(number)) < 2**31 for number in range(1000))


def test_stages_have_seeds_and_keys_of_their_own():
    names = [f"rlhf_v{number}_annotation" for number in range(1, 6)]
    seeds = {stage_seed(seed, name) for seed in range(20) for name in names}
    assert len(seeds) == 100
    keys = {tuple(jax.random.key_data(stage_key(seed, name)).tolist()) for seed in range(4) for name in names}
    assert len(keys) == 20


def test_the_keys_of_purposes_are_independent():
    key = jax.random.key(0)
    draws = {name: np.asarray(jax.random.normal(named_key(key, name), 4000)) for name in ("newest", "earlier")}
    # The correlation of 4000 independent pairs has a standard deviation of 0.016; five of them.
    assert abs(np.corrcoef(draws["newest"], draws["earlier"])[0, 1]) < 0.08
    np.testing.assert_array_equal(draws["newest"], jax.random.normal(named_key(key, "newest"), 4000))


def test_versions_name_what_a_result_may_depend_on():
    assert {"python", "jax", "flax", "orbax-checkpoint", "grain"} <= versions().keys()
