"""What the compiled steps of the stages send between devices: what they must, where they must, and nothing else.

The sizes differ from each other, so that a shape tells what an array is.
"""

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import (
    LanguageModel,
    ScalarModel,
    init_language_model,
    init_scalar_model,
    parameter_shardings,
)
from llama2_jax.pipeline.model_training import language_model_step
from llama2_jax.pipeline.ppo_steps import PolicyObjective, ppo_critic_step, ppo_policy_step
from llama2_jax.sharding.batches import shard_batch
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.stages.reward_model import reward_model_step
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import TrainState, state_shardings
from tests.hlo import by_body, collectives, shapes_in

pytestmark = pytest.mark.slow

LAYERS, DIM, FFN, VOCAB, ROWS, LENGTH = 3, 64, 160, 320, 16, 24
MODEL = ModelConfig(
    vocab_size=VOCAB, dim=DIM, layers=LAYERS, heads=8, kv_heads=8, ffn_hidden=FFN, max_length=LENGTH, remat="full"
)
OPTIMIZER = OptimizerConfig()
# q, k, v and the output; gate, up and down.
WEIGHTS = Counter({(DIM, DIM): 4, (DIM, FFN): 3})


def batch_of(names, floats=(), accumulation=None, pairs=()):
    shape = (ROWS, LENGTH) if accumulation is None else (accumulation, ROWS, LENGTH)
    batch = {name: np.zeros(shape, np.int32) for name in names}
    batch |= {name: np.zeros(shape, np.float32) for name in floats}
    return batch | {name: np.zeros((accumulation, 8), dtype) for name, dtype in pairs}


TOKENS = ("tokens", "positions", "segment_ids")
PAIRS = [
    *((f"{side}_{place}", np.int32) for side in ("chosen", "rejected") for place in ("row", "column")),
    *((name, np.float32) for name in ("margin", "chosen_safe", "rejected_safe", "safety_known", "pair_mask")),
]
STAGES = {
    "language model": (
        LanguageModel, batch_of((*TOKENS, "loss_mask")),
        lambda model, mesh: language_model_step(model, OPTIMIZER, 1, mesh),
    ),
    "reward model": (
        ScalarModel, batch_of(TOKENS, accumulation=2, pairs=PAIRS),
        lambda model, mesh: reward_model_step(model, OPTIMIZER, 1.0, 2, mesh),
    ),
    "ppo policy": (
        LanguageModel, batch_of(TOKENS, ("log_probabilities", "advantages", "mask")),
        lambda model, mesh: ppo_policy_step(model, OPTIMIZER, PolicyObjective(0.2, 1.0), 1, mesh),
    ),
    "ppo critic": (
        ScalarModel, batch_of(TOKENS, ("values", "returns", "mask")),
        lambda model, mesh: ppo_critic_step(model, OPTIMIZER, 0.2, 1, mesh),
    ),
}  # fmt: skip


def lowered(stage, mesh, model=MODEL):
    """The stage's step, lowered for abstract parameters on a mesh."""
    module, batch, step_on = STAGES[stage]
    init = init_language_model if module is LanguageModel else init_scalar_model
    optimizer = make_optimizer(OPTIMIZER)
    params = jax.eval_shape(functools.partial(init, model), jax.random.key(0))
    state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, jax.eval_shape(optimizer.init, params))
    places = state_shardings(optimizer, parameter_shardings(module(model), mesh))
    state = jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), state, places)
    if mesh.devices.flat[0].platform == "cpu":
        batch = shard_batch(batch, mesh)
    else:
        split = jax.NamedSharding(mesh, jax.P(("data", "fsdp")))
        batch = {name: jax.ShapeDtypeStruct(one.shape, one.dtype, sharding=split) for name, one in batch.items()}
    return step_on(model, mesh).lower(state, batch, jax.ShapeDtypeStruct((), jnp.float32))


@functools.cache
def compiled(stage, shape):
    text = lowered(stage, make_mesh(*shape)).compile().as_text()
    return text, collectives(text)


def check_nothing_whole(text):
    """Neither the weights or gradients of all layers, nor the logits of all rows, are ever on one device."""
    whole = {(LAYERS, DIM, DIM), (LAYERS, DIM, FFN), (LAYERS, FFN, DIM)}
    logits = {(ROWS, LENGTH, VOCAB), (ROWS * LENGTH, VOCAB), (VOCAB, ROWS * LENGTH)}
    assert not shapes_in(text) & (whole | logits)


def check_gathers_in_loops(found):
    """Two loops gather: the forward and the backward pass over the layers, each weight of a layer once.

    Numbers of rows and pairs, as the reward model's loss needs them, are not looked at.
    """
    large = [one for one in found if max(map(np.prod, one.shapes)) >= DIM * DIM]
    assert by_body(large, "all-gather") == [WEIGHTS, WEIGHTS]


@pytest.mark.parametrize("stage", STAGES)
def test_fsdp_gathers_a_layer_at_a_time_and_keeps_gradients_split(stage):
    text, found = compiled(stage, (1, 8, 1))
    check_nothing_whole(text)
    check_gathers_in_loops(found)
    # The layers' gradients are summed up in the backward loop: matrices, and the two norms' scales. The CPU has no
    # reduce-scatter of its own: it sums and takes its part. That the part is what is kept, the first check says.
    sums = Counter()
    for one in by_body([one for one in found if max(map(len, one.shapes)) == 2], "all-reduce"):
        sums += one
    assert {shape: count for shape, count in sums.items() if len(shape) == 2} == WEIGHTS
    assert not [one for one in found if one.in_loop and one.kind in ("collective-permute", "collective-broadcast")]


def test_fsdp_moves_no_activations_but_the_embeddings():
    _, found = compiled("language model", (1, 8, 1))
    swaps = [one for one in found if one.kind == "all-to-all"]
    # Rows looked up for the others against columns of one's own, there and back.
    assert [sum(map(np.prod, one.shapes)) for one in swaps] == [ROWS // 8 * LENGTH * DIM] * 2
    assert not any(one.in_loop for one in swaps)
    outside = [one for one in found if not one.in_loop]
    gathered = {tuple(sorted(shape)) for one in outside if one.kind == "all-gather" for shape in one.shapes}
    # The head, and the token ids.
    assert gathered == {(DIM, VOCAB), (ROWS, LENGTH)}
    summed = Counter(tuple(sorted(s)) for one in outside if one.kind == "all-reduce" for s in one.shapes if s)
    # The gradients of the head and of the final norm; all else is numbers: counts, the loss, the gradient's norm.
    assert summed == {(DIM, VOCAB): 1, (DIM,): 1}


def test_tensor_parallel_layers_sum_activations_twice_each_way():
    text, found = compiled("language model", (1, 1, 8))
    check_nothing_whole(text)
    activations, whole_rows = (ROWS * LENGTH, DIM), (ROWS, LENGTH, DIM)
    assert {one.kind for one in found} == {"all-reduce"}
    forward, backward = sorted(by_body(found, "all-reduce"), key=lambda body: body.total())
    # After the attention's output and after the down projection.
    assert forward == {tuple(sorted(activations)): 2}
    # Of the sum after the attention computed again, and of what q, k, v and gate, up send back. The CPU sums each of
    # these five apart, the TPU two sums of them.
    assert backward == {tuple(sorted(activations)): 1 + 3 + 2}
    outside = {shape for one in found if not one.in_loop for shape in one.shapes}
    # The embedding's rows, what the head sends back, and numbers of each token for the softmax.
    assert outside <= {whole_rows, activations, (ROWS, LENGTH), (ROWS * LENGTH,), ()}


def test_on_a_mesh_of_three_axes_only_weights_are_gathered(capfd):
    text, found = compiled("language model", (2, 2, 2))
    check_nothing_whole(text)
    half = Counter({(DIM // 2, DIM): 4, (DIM, FFN // 2): 3})
    assert by_body(found, "all-gather") == [half, half]
    outside = {
        tuple(sorted(shape)) for one in found if not one.in_loop and one.kind == "all-gather" for shape in one.shapes
    }
    assert outside == {tuple(sorted((DIM, VOCAB // 2))), (ROWS // 2, LENGTH)}
    assert "rematerialization" not in capfd.readouterr().err


@pytest.mark.parametrize("stage", STAGES)
def test_the_steps_carry_their_constraints(stage):
    """The only alarm for constraints that silently do nothing."""
    one = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    counts = [lowered(stage, mesh).as_text().count("sdy.sharding_constraint") for mesh in (make_mesh(2, 2, 2), one)]
    # On one device only gradients and state are pinned; a mesh adds 20 and more for activations and weights, there and
    # back.
    assert counts[0] >= counts[1] + 40
