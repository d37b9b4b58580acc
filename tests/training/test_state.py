"""Where the optimizer's moments lie."""

import jax
from jax.sharding import NamedSharding, PartitionSpec

from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import abstract_state, create_state


def test_moments_lie_as_the_parameters_do(toy):
    mesh = make_mesh()
    shardings = jax.tree.map(
        lambda axes: NamedSharding(mesh, PartitionSpec(*axes)), toy.axes, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )
    params = jax.device_put(toy.init(), shardings)
    state = create_state(params, make_optimizer(OptimizerConfig()))
    adam = state.opt_state[1]
    for moment in (adam.mu, adam.nu):
        assert jax.tree.map(lambda leaf: leaf.sharding, moment) == shardings
    assert adam.count.sharding.is_fully_replicated and state.step.sharding.is_fully_replicated
    assert state.params is params
    assert state.step == 0


def test_abstract_state_has_shapes_types_and_places(toy):
    state = create_state(toy.init(), make_optimizer(OptimizerConfig()))
    abstract = abstract_state(state)
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for leaf, wanted in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
        assert (leaf.shape, leaf.dtype, leaf.sharding) == (wanted.shape, wanted.dtype, wanted.sharding)
