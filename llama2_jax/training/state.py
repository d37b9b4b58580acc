"""What training carries from step to step."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int

Params = Any
Shardings = Any


@flax.struct.dataclass
class TrainState:
    """Parameters and optimizer state after `step` optimizer steps."""

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState


def create_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step, with the optimizer's moments sharded as the parameters."""

    def create(params: Params) -> TrainState:
        return TrainState(jnp.zeros((), jnp.int32), None, optimizer.init(params))

    places = jax.tree.map(lambda leaf: leaf.sharding, params)
    if all(isinstance(place, NamedSharding) for place in jax.tree.leaves(places)):
        places = state_shardings(optimizer, places).replace(params=None)
        return jax.jit(create, out_shardings=places)(params).replace(params=params)
    state = create(params)
    one = jax.tree.leaves(params)[0]
    # Committed to a device if the parameters are: the first step must be compiled for the same arguments as the second.
    return (jax.device_put(state, one.sharding) if one.committed else state).replace(params=params)


def state_shardings(optimizer: optax.GradientTransformation, shardings: Shardings) -> TrainState:
    """Returns the sharding of each array of a state: moments as their parameters, counters whole on every device.

    Args:
      optimizer: whose state it is.
      shardings: a NamedSharding for each parameter.
    """
    everywhere = NamedSharding(jax.tree.leaves(shardings)[0].mesh, PartitionSpec())
    # Only the structure matters: the shapes are made up.
    some = jax.tree.map(lambda _: jax.ShapeDtypeStruct((1, 1), jnp.float32), shardings)
    opt_state = optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, some),
        shardings,
        transform_non_params=lambda _: everywhere,
    )
    return TrainState(everywhere, shardings, opt_state)


def abstract_state(state: TrainState) -> TrainState:
    """Returns shapes, dtypes and shardings of a state, without its arrays, to restore a checkpoint into."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
