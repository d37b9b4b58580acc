"""Training and scoring never hold all logits in float32, and on a mesh the head is gathered and reduced once."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.inference.score import following_log_probabilities
from llama2_jax.models.llama import LanguageModel, init_language_model, parameter_shardings
from llama2_jax.pipeline.model_training import language_model_step
from llama2_jax.pipeline.ppo_steps import PolicyObjective, ppo_policy_step
from llama2_jax.sharding.batches import shard_batch
from llama2_jax.sharding.mesh import batch_sharding, make_mesh
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import TrainState, create_state, state_shardings
from tests.smallest import smallest_model

ROWS, LENGTH, VOCAB, CHUNK = 8, 64, 512, 16


def model_of(chunk):
    return smallest_model(dim=32, heads=4, kv_heads=2, ffn_hidden=48, vocab_size=VOCAB, logits_chunk=chunk)


def one_device():
    return make_mesh(1, 1, 1, devices=jax.devices()[:1])


def abstract_arguments(model, mesh, last="loss_mask", **more):
    """The shapes of a state and a batch of packed rows, laid out over the mesh."""
    optimizer = make_optimizer(OptimizerConfig())
    shapes = jax.eval_shape(functools.partial(init_language_model, model), jax.random.key(0))
    state = jax.eval_shape(lambda p: TrainState(jnp.zeros((), jnp.int32), p, optimizer.init(p)), shapes)
    places = state_shardings(optimizer, parameter_shardings(LanguageModel(model), mesh))
    state = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state, places
    )
    dtypes = dict.fromkeys(("tokens", "positions", "segment_ids", last), jnp.int32) | more
    rows = batch_sharding(mesh)
    batch = {name: jax.ShapeDtypeStruct((ROWS, LENGTH), dtype, sharding=rows) for name, dtype in dtypes.items()}
    return state, batch, jax.ShapeDtypeStruct((), jnp.float32)


def trace(what, chunk):
    """The traced program of a step or of scoring."""
    model, mesh = model_of(chunk), one_device()
    if what == "next token":
        return language_model_step(model, OptimizerConfig(), 1, mesh).trace(*abstract_arguments(model, mesh))
    if what == "ppo":
        arguments = abstract_arguments(model, mesh, "mask", log_probabilities=jnp.float32, advantages=jnp.float32)
        return ppo_policy_step(model, OptimizerConfig(), PolicyObjective(0.2, 1.0), 1, mesh).trace(*arguments)
    state, batch, rate = abstract_arguments(model, mesh)
    inputs = (batch[name] for name in ("tokens", "positions", "segment_ids"))
    return following_log_probabilities.trace(state.params, *inputs, temperature=rate, config=model, mesh=None)


def tokens_with_logits(text, vocab):
    """Of how many tokens the largest float32 array [..., vocab] of a program holds logits."""
    return max(math.prod(map(int, found.split(","))) for found in re.findall(rf"f32\[([\d,]+),{vocab}\]", text))


@pytest.mark.parametrize(
    "what", ["score", *(pytest.param(what, marks=pytest.mark.slow) for what in ("next token", "ppo"))]
)
def test_all_logits_are_in_no_traced_program_with_a_chunk(what):
    tokens = {chunk: tokens_with_logits(str(trace(what, chunk).jaxpr), VOCAB) for chunk in (0, CHUNK)}
    assert tokens == {0: ROWS * LENGTH, CHUNK: ROWS * CHUNK}


def compiled_step(chunk, mesh):
    model = model_of(chunk)
    return language_model_step(model, OptimizerConfig(), 1, mesh).lower(*abstract_arguments(model, mesh)).compile()


@pytest.fixture(scope="module")
def on_mesh():
    """The training step with a chunk, compiled for data 2, fsdp 2, tensor 2."""
    return compiled_step(CHUNK, make_mesh(2, 2, 2))


@pytest.fixture(scope="module")
def program(on_mesh):
    """Its text, computation by computation."""
    parts = re.split(r"\n(?=(?:ENTRY )?%[\w.\-]+ )", on_mesh.as_text())
    return {"entry" if part.startswith("ENTRY") else part.split()[0]: part for part in parts}


def collectives(text, kinds, shape):
    """How many collectives of these kinds have a result of this shape, alone or among others."""
    return len(re.findall(rf"= .*f32\[{shape}\].* (?:{kinds})(?:-start)?\(", text))


@pytest.mark.slow
def test_the_head_is_gathered_and_its_gradient_reduced_once_and_not_once_a_chunk(program):
    head = f"32,{VOCAB // 2}"  # whole over fsdp, split over tensor
    reductions, gathers = "all-reduce|reduce-scatter", "all-gather"
    assert 1 <= collectives(program["entry"], gathers, head) <= 2
    assert collectives(program["entry"], reductions, head) == 1
    loops = [text for name, text in program.items() if name != "entry"]
    # The loops are there, and do exchange something: the maximum and the sum over the vocabulary's parts.
    assert sum(collectives(text, reductions, f"1,{ROWS // 4 * CHUNK}") for text in loops) >= 2
    assert not any(collectives(text, gathers, r"[\d,]+") for text in loops)
    assert not any(collectives(text, reductions, rf"(?:1,)?{head}") for text in loops)


@pytest.mark.slow
def test_no_device_holds_all_logits_of_its_rows(program):
    # Rows are split over 4 groups of devices, the vocabulary over 2.
    assert tokens_with_logits("\n".join(program.values()), VOCAB // 2) == ROWS // 4 * CHUNK


@pytest.mark.slow
def test_a_step_with_a_chunk_on_a_mesh_equals_one_without_on_one_device(on_mesh):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCAB, (ROWS, LENGTH)).astype(np.int32)
    segments = np.tile(np.repeat([1, 2], LENGTH // 2), (ROWS, 1)).astype(np.int32)
    batch = {"tokens": tokens, "positions": segments * 0, "segment_ids": segments, "loss_mask": segments}
    params = init_language_model(model_of(0), jax.random.key(0))
    found = []
    for step, mesh in ((compiled_step(0, one_device()), one_device()), (on_mesh, make_mesh(2, 2, 2))):
        own = jax.device_put(jax.tree.map(jnp.copy, params), parameter_shardings(LanguageModel(model_of(0)), mesh))
        state, metrics = step(
            create_state(own, make_optimizer(OptimizerConfig())), shard_batch(batch, mesh), np.float32(0.0)
        )
        found.append(jax.device_get((metrics, state.opt_state[1].mu)))
    # Float32 sums in another order; the first moment is a tenth of the gradient, clipped.
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())
