"""Weights consolidated for generation: how they are split, what they cost, that they are freed and change no answer."""

import dataclasses
import gc

import jax
import numpy as np
import pytest

from llama2_jax.inference.consolidation import generation_weights
from llama2_jax.inference.generate import DecodedRows, Sampling, decode_rows, generate, prefill_rows
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel, init_language_model, parameter_shardings
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.sizing.abstract import device_bytes
from tests.hlo import collectives

DIM, FFN, LAYERS, VOCAB = 64, 160, 2, 320
MODEL = ModelConfig(
    vocab_size=VOCAB, dim=DIM, layers=LAYERS, heads=8, kv_heads=8, ffn_hidden=FFN, max_length=48, scan_layers=False
)
SPLIT = dataclasses.replace(MODEL, consolidate_weights=False)


@pytest.fixture(scope="module")
def host_params():
    fresh = init_language_model(MODEL, jax.random.key(0))
    return jax.tree.map(lambda array: np.asarray(array) * (4 if array.ndim > 1 else 1), fresh)


def on_mesh(host_params, *shape):
    return jax.device_put(host_params, parameter_shardings(LanguageModel(MODEL), make_mesh(*shape)))


@pytest.mark.slow
def test_consolidated_weights_are_split_over_tensor_only(host_params):
    params = on_mesh(host_params, 2, 2, 2)
    weights = generation_weights(MODEL, params)
    parts = {name: array.addressable_shards[0].data.shape for name, array in weights.layers[1].items()}
    assert parts["query"] == parts["key"] == (DIM, DIM // 2) and parts["output"] == (DIM // 2, DIM)
    assert parts["gate"] == parts["up"] == (DIM, FFN // 2) and parts["down"] == (FFN // 2, DIM)
    assert weights.embedding.addressable_shards[0].data.shape == (VOCAB // 2, DIM)
    assert weights.head.addressable_shards[0].data.shape == (DIM, VOCAB // 2)
    split = generation_weights(SPLIT, params)
    assert split.layers[1]["query"].addressable_shards[0].data.shape == (DIM // 2, DIM // 2)
    for layer, split_layer in zip(weights.layers, split.layers, strict=True):
        jax.tree.map(np.testing.assert_array_equal, layer, split_layer)
    np.testing.assert_array_equal(weights.layers[1]["down"], host_params["trunk"]["layers"]["down"][1])


def test_arrays_that_need_no_change_are_shared_with_the_parameters(host_params):
    """On one device, in float32: only the layers, which are stacked in the parameters, take additional memory."""
    params = jax.device_put(host_params)
    weights = generation_weights(MODEL, params)
    assert weights.embedding is params["trunk"]["embedding"]
    assert weights.final_norm is params["trunk"]["final_norm"]
    assert weights.head is params["head"]["kernel"]
    split = on_mesh(host_params, 8, 1, 1)  # over data only: replicated already
    assert generation_weights(MODEL, split).head is split["head"]["kernel"]


def test_memory_is_freed_after_generation(host_params):
    params = on_mesh(host_params, 1, 8, 1)

    def live_bytes():
        gc.collect()
        return sum(array.nbytes for array in jax.live_arrays() if not array.is_deleted())

    before = live_bytes()
    weights = generation_weights(MODEL, params)
    shared = weights.final_norm.nbytes
    assert live_bytes() - before == sum(leaf.nbytes for leaf in jax.tree.leaves(weights)) - shared
    assert device_bytes(weights) > 7 * device_bytes(params)  # the norms' scales are replicated in both
    del weights
    assert live_bytes() == before


def program(model, host_params, *shape):
    """The text of the compiled decoding loop, for 16 rows."""
    params = on_mesh(host_params, *shape)
    mesh = make_mesh(*shape)
    weights = generation_weights(model, params)
    tokens, rows = np.ones((16, 32), np.int32), np.arange(16, dtype=np.int32)
    positions = np.tile(np.arange(32, dtype=np.int32), (16, 1))
    hidden, cache = jax.eval_shape(
        lambda weights: prefill_rows(weights, tokens, positions, rows, config=model, slots=40, mesh=mesh), weights
    )
    decoded_rows = DecodedRows(
        positions=np.full(16, 32, np.int32), temperature=np.ones(16, np.float32), answer_ids=rows,
        used=np.ones(16, bool), eos_id=np.int32(2), top_p=None,
    )  # fmt: skip
    return decode_rows.lower(
        weights, hidden, cache, decoded_rows, jax.random.key(0), config=model, steps=8, mesh=mesh
    ).compile().as_text()  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [16, 8])
def test_prompts_are_prefilled_on_the_devices_of_their_rows(host_params, prompts):
    """Nothing is sent, above all no keys and values; also if two rows share a prompt."""
    weights = generation_weights(MODEL, on_mesh(host_params, 1, 8, 1))
    tokens, rows = np.ones((prompts, 32), np.int32), np.zeros(16, np.int32)
    text = prefill_rows.lower(
        weights, tokens, tokens, rows, config=MODEL, slots=40, mesh=make_mesh(1, 8, 1)
    ).compile().as_text()  # fmt: skip
    assert not collectives(text)


@pytest.mark.slow
def test_a_step_of_decoding_gathers_no_weight_that_was_consolidated(host_params):
    weights = {(DIM, DIM), (DIM, FFN), (DIM, VOCAB)}

    def gathered(model):
        found = collectives(program(model, host_params, 1, 8, 1))
        shapes = [tuple(sorted(shape)) for collective in found if collective.in_loop for shape in collective.shapes]
        return [shape for shape in shapes if shape in weights], [shape for shape in shapes if shape not in weights]

    of_weights, others = gathered(SPLIT)
    assert sorted(of_weights) == sorted([(DIM, DIM)] * 4 * LAYERS + [(DIM, FFN)] * 3 * LAYERS + [(DIM, VOCAB)])
    of_weights, others = gathered(MODEL)
    # What remains is the check whether all rows have ended.
    assert not of_weights and max(map(np.prod, others), default=0) <= 16


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)], ids=str)
def test_answers_are_the_same_with_and_without_consolidation(host_params, shape):
    prompts = [list(range(3, 3 + size)) for size in (4, 9, 2, 20, 7)]
    sampling, key = Sampling(1.0, 1.0, 8), jax.random.key(1)
    consolidated, split = (
        [sample.tokens.tolist() for sample in generate(model, on_mesh(host_params, *shape), prompts, sampling, key, 2)]
        for model in (MODEL, SPLIT)
    )
    assert consolidated == split
    assert len(set(map(tuple, consolidated))) == len(prompts)
