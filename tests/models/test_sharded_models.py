"""The logical axes take effect: arrays are split over fsdp and tensor, with the same numbers as on one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import (
    LanguageModel,
    ScalarModel,
    init_language_model,
    parameter_shardings,
)
from llama2_jax.sharding.mesh import batch_sharding, make_mesh

CONFIG = ModelConfig(vocab_size=64, dim=32, layers=2, heads=4, kv_heads=2, ffn_hidden=64, max_length=16)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(1, 4, 2)


def test_parameters_are_split_as_their_axes_say(mesh):
    shardings = parameter_shardings(LanguageModel(CONFIG), mesh)
    specs = jax.tree.map(lambda sharding: sharding.spec, shardings)
    layers = specs["trunk"]["layers"]
    assert layers["query"] == layers["gate"] == PartitionSpec(None, "fsdp", "tensor")
    assert layers["output"] == layers["down"] == PartitionSpec(None, "tensor", "fsdp")
    assert specs["trunk"]["embedding"] == PartitionSpec("tensor", "fsdp")
    assert specs["head"]["kernel"] == PartitionSpec("fsdp", "tensor")
    assert parameter_shardings(ScalarModel(CONFIG), mesh)["head"]["kernel"].spec == PartitionSpec("fsdp", None)
    params = jax.eval_shape(functools.partial(init_language_model, CONFIG), jax.random.key(0))
    assert jax.tree.structure(params) == jax.tree.structure(shardings)


@pytest.mark.slow
@pytest.mark.parametrize("pin_activations", [False, True])
def test_sharded_logits_and_gradients_equal_those_of_one_device(mesh, pin_activations):
    shardings = parameter_shardings(LanguageModel(CONFIG), mesh)
    params = jax.jit(init_language_model, static_argnums=0)(CONFIG, jax.random.key(0))
    tokens = np.asarray(jax.random.randint(jax.random.key(1), (8, 16), 0, 64))
    positions, segment_ids = np.tile(np.arange(16) % 9, (8, 1)), np.tile(1 + np.arange(16) // 9, (8, 1))

    def loss(params, tokens, model):
        logits = model.apply({"params": params}, tokens, positions, segment_ids)
        return jnp.mean(jnp.sin(10 * logits)), logits

    def run(model, params, tokens, **options):
        program = jax.value_and_grad(functools.partial(loss, model=model), has_aux=True)
        return jax.jit(program, **options)(params, tokens)

    (_, expected), expected_gradients = run(LanguageModel(CONFIG), params, tokens)
    split_params = jax.device_put(params, shardings)
    shard = split_params["trunk"]["layers"]["query"].addressable_shards[0].data
    assert shard.shape == (2, 8, 16), "a parameter of [2, 32, 32] is split 4 x 2"
    model = LanguageModel(CONFIG, mesh if pin_activations else None)
    (_, logits), gradients = run(
        model, split_params, jax.device_put(tokens, batch_sharding(mesh)), out_shardings=((None, None), shardings)
    )
    # The same sums, split over devices: float32 in another order.
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    for got, gradient in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
        np.testing.assert_allclose(got, gradient, atol=1e-5 * float(jnp.abs(gradient).max()))
    if pin_activations:
        assert {shard.data.shape for shard in logits.addressable_shards} == {(2, 16, 32)}


def test_a_mesh_puts_its_constraints_into_the_program(mesh):
    """The only test that notices constraints without effect."""
    abstract = jax.eval_shape(functools.partial(init_language_model, CONFIG), jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((8, 16), jnp.int32)

    def constraints(model):
        lowered = jax.jit(model.apply).lower({"params": abstract}, tokens, tokens, tokens)
        return lowered.as_text().count("sharding_constraint")

    # The embedding's lookup 3; in the scanned layer its weights 9, q, k, v, the feed-forward, the residual twice; the
    # head and the logits.
    assert constraints(LanguageModel(CONFIG, mesh)) == 3 + 9 + 6 + 2
    assert constraints(LanguageModel(CONFIG)) == 0
