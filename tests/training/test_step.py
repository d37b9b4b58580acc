"""The training step: neither accumulation nor sharding changes what is learnt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from llama2_jax.sharding.mesh import batch_sharding, make_mesh
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from llama2_jax.training.step import build_train_step, check_stacked, deal_rows

RATE = np.float32(0.01)
# Sums of the same numbers in another order, carried through five Adam steps, whose first ones divide gradients by
# their own size; measured differences are below 2e-6.
ORDER = 1e-5


@pytest.fixture(scope="module")
def optimizer():
    return make_optimizer(OptimizerConfig(clip=0.5))


@pytest.fixture(scope="module")
def shardings(toy):
    mesh = make_mesh(data=2, fsdp=4)
    return jax.tree.map(
        lambda axes: NamedSharding(mesh, PartitionSpec(*axes)), toy.axes, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )


def train(toy, batch_of, optimizer, steps=5, shardings=None, prepare=lambda batch: batch, **options):
    """The trajectory of losses and gradient norms, and the last state."""
    params = toy.init() if shardings is None else jax.device_put(toy.init(), shardings)
    state = create_state(params, optimizer)
    step = build_train_step(toy.loss, toy.count, optimizer, shardings=shardings, **options)
    trajectory = []
    for number in range(steps):
        state, metrics = step(state, prepare(batch_of(number)), RATE)
        trajectory.append([float(metrics[name]) for name in ("loss", "grad_norm", "accuracy")])
    return np.array(trajectory), state, step


def assert_same(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=ORDER, atol=ORDER)
    for a, b in zip(jax.tree.leaves(one[1].params), jax.tree.leaves(other[1].params), strict=True):
        np.testing.assert_allclose(a, b, rtol=ORDER, atol=ORDER)


@pytest.fixture(scope="module")
def whole(toy, batch_of, optimizer):
    return train(toy, batch_of, optimizer)


def test_it_learns_and_counts_steps(whole):
    trajectory, state, _ = whole
    assert state.step == 5
    assert trajectory[-1, 0] < trajectory[0, 0]


@pytest.mark.parametrize("accumulation", [2, *(pytest.param(more, marks=pytest.mark.slow) for more in (4, 8))])
def test_microbatches_add_up(toy, batch_of, optimizer, whole, accumulation):
    assert_same(train(toy, batch_of, optimizer, accumulation=accumulation), whole)


@pytest.mark.parametrize("accumulation", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sharding_changes_nothing(toy, batch_of, optimizer, whole, shardings, accumulation):
    mesh = jax.tree.leaves(shardings)[0].mesh
    sharded = train(
        toy,
        batch_of,
        optimizer,
        shardings=shardings,
        accumulation=accumulation,
        prepare=lambda batch: jax.device_put(batch, batch_sharding(mesh)),
    )
    assert_same(sharded, whole)
    _, state, step = sharded
    for tree in (state.params, state.opt_state[1].mu, state.opt_state[1].nu):
        assert jax.tree.map(lambda leaf: leaf.sharding, tree) == shardings
    # Results lie as arguments do: the second call found the program of the first.
    assert step._cache_size() == 1


def test_gradients_are_pinned_in_the_accumulation(toy, batch_of, optimizer, shardings):
    state = create_state(jax.device_put(toy.init(), shardings), optimizer)
    counts = []
    for pinned in (None, shardings):
        step = build_train_step(toy.loss, toy.count, optimizer, accumulation=2, shardings=pinned)
        counts.append(step.lower(state, batch_of(0), RATE).as_text().count("sdy.sharding_constraint"))
    leaves = len(jax.tree.leaves(shardings))
    # The sum's start, each microbatch's gradients, and their sum.
    assert counts == [0, 3 * leaves]


def test_stacked_batches_equal_dealt_ones(toy, batch_of, optimizer, whole):
    def stack(batch):
        return {name: array.reshape(4, -1, *array.shape[1:]) for name, array in batch.items()}

    assert_same(train(toy, batch_of, optimizer, prepare=stack, accumulation=4, stacked=True), whole)


@pytest.mark.parametrize("place", [lambda params: params, lambda params: jax.device_put(params, jax.devices()[0])])
def test_one_program_serves_all_steps(toy, batch_of, optimizer, place):
    state = create_state(place(toy.init()), optimizer)
    step = build_train_step(toy.loss, toy.count, optimizer)
    for number in range(3):
        state, _ = step(state, batch_of(number), RATE)
    assert step._cache_size() == 1


def test_rate_zero_changes_no_parameter(toy, batch_of, optimizer):
    params = toy.init()
    step = build_train_step(toy.loss, toy.count, optimizer)
    state = create_state(jax.tree.map(jnp.copy, params), optimizer)
    state, metrics = step(state, batch_of(0), np.float32(0))
    assert metrics["learning_rate"] == 0
    jax.tree.map(np.testing.assert_array_equal, state.params, params)


def test_the_state_is_donated(toy, batch_of, optimizer):
    state = create_state(toy.init(), optimizer)
    build_train_step(toy.loss, toy.count, optimizer)(state, batch_of(0), RATE)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_rows_are_dealt_out_in_turn():
    dealt = deal_rows({"x": np.arange(6)[:, None] * np.ones((1, 2))}, 2)
    np.testing.assert_array_equal(dealt["x"][:, :, 0], [[0, 2, 4], [1, 3, 5]])


def test_packed_pairs_can_not_be_dealt_out():
    batch = {"tokens": np.zeros((8, 12)), "chosen_row": np.zeros(8)}
    with pytest.raises(ValueError, match=r"cannot divide this batch.*chosen_row.*stacked=True"):
        deal_rows(batch, 2)
    with pytest.raises(ValueError, match="cannot divide this batch"):
        deal_rows({"tokens": np.zeros((8, 12)), "response": np.zeros((8, 5))}, 2)


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="8 rows cannot be distributed evenly to accumulation=3"):
        deal_rows({"tokens": np.zeros((8, 12))}, 3)


def test_an_array_that_is_not_stacked_is_named():
    with pytest.raises(ValueError, match=r"accumulation=4.*'row': \(8,\)"):
        check_stacked({"tokens": np.zeros((4, 2, 12)), "row": np.zeros(8)}, 4)
